//! Namespaces that belong to no tenant, and who decides which do.

use serde_json::{Value, json};

use crate::support::{Cluster, OPERATOR_NAMESPACE, of_tenant, until};

const REFUSED: Option<&str> = Some("belongs to no MCPTenant");

/// Returns a valid object of each kind that tenants write.
fn objects(namespace: &str, name: &str) -> [Value; 4] {
    let object = |kind: &str, spec: Value| {
        json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": namespace}})
    };
    let source = json!({"type": "Stdio", "stdio": {"image": "x", "command": ["x"]}});
    [
        object("MCPServer", json!({"source": source})),
        object("MCPScope", json!({"serverRef": {"name": "files"}})),
        object("MCPPrincipal", json!({"suspend": false})),
        object("MCPBudget", json!({"period": "Day", "calls": 5})),
    ]
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn labels(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}})
}

#[tokio::test]
async fn a_namespace_without_a_tenant_takes_no_objects() {
    let cluster = Cluster::connect().await;
    assert!(cluster.namespace("stranger", json!({})).await);
    for object in objects("stranger", "x") {
        until(REFUSED, || cluster.dry_run(&object)).await;
    }
    assert!(cluster.namespace("known", of_tenant("known")).await);
    for object in objects("known", "x") {
        until(None, || cluster.dry_run(&object)).await;
    }
    let runtime = json!({"mcp-fleet.dev/tenant": "known", "mcp-fleet.dev/tenant-uid": "u-1"});
    assert!(cluster.namespace("known-mcp", runtime).await);
    for object in objects("known-mcp", "x") {
        until(Some("is the runtime namespace of a tenant"), || cluster.dry_run(&object)).await;
    }
}

#[tokio::test]
async fn an_object_whose_namespace_lost_its_tenant_can_go_but_not_change() {
    let cluster = Cluster::connect().await;
    assert!(cluster.namespace("former", of_tenant("former")).await);
    let edits = [
        json!({"spec": {"replicas": 2}}),
        json!({"spec": {"classes": ["Read"]}}),
        json!({"spec": {"suspend": true}}),
        json!({"spec": {"calls": 6}}),
    ];
    let objects = objects("former", "stays");
    for object in &objects {
        let held = crate::cases::merged(object, &json!({"metadata": {"finalizers": ["test/held"]}}));
        until(None, || cluster.create(&held)).await;
    }
    cluster.patch(&namespace("former"), &labels(json!({"mcp-fleet.dev/tenant": null}))).await.unwrap();
    for (object, edit) in objects.iter().zip(&edits) {
        until(REFUSED, || cluster.dry_patch(object, edit)).await;
        cluster.patch(object, &json!({"metadata": {"annotations": {"note": "x"}}})).await.unwrap();
        cluster.delete(object).await.unwrap();
        cluster.patch(object, &json!({"metadata": {"finalizers": null}})).await.unwrap();
        assert!(cluster.dry_patch(object, &json!({})).await.unwrap_err().contains("not found"));
    }
}

#[tokio::test]
async fn only_the_platform_team_says_which_tenant_a_namespace_belongs_to() {
    let cluster = Cluster::connect().await;
    let namespaces = json!({"apiGroups": [""], "resources": ["namespaces"],
        "verbs": ["create", "get", "patch", "update"]});
    let tenants = json!({"apiGroups": ["mcp-fleet.dev"], "resources": ["mcptenants"], "verbs": ["patch"]});
    let onboarding = cluster.user("onboarding", &json!([namespaces])).await;
    let platform = cluster.user("platform", &json!([namespaces, tenants])).await;
    let refused = Some("only those who may patch MCPTenants");
    assert!(cluster.namespace("marked", of_tenant("marked")).await && cluster.namespace("plain", json!({})).await);

    // What has nothing to do with tenants is nobody's business.
    until(None, || onboarding.dry_patch(namespace("plain"), labels(json!({"team": "x"})))).await;
    until(None, || onboarding.dry_patch(namespace("marked"), labels(json!({"team": "x"})))).await;
    until(None, || onboarding.dry_run(namespace("another"))).await;
    for label in ["mcp-fleet.dev/tenant", "mcp-fleet.dev/tenant-uid"] {
        let forged = labels(json!({label: "acme"}));
        until(refused, || onboarding.dry_patch(namespace("plain"), &forged)).await;
        until(refused, || onboarding.dry_run(crate::cases::merged(&namespace("another"), &forged))).await;
        until(None, || platform.dry_patch(namespace("plain"), &forged)).await;
    }
    let annotated = json!({"metadata": {"annotations": {"mcp-fleet.dev/created-for": "u-1"}}});
    until(refused, || onboarding.dry_patch(namespace("plain"), &annotated)).await;
    let removed = labels(json!({"mcp-fleet.dev/tenant": null}));
    until(refused, || onboarding.dry_patch(namespace("marked"), &removed)).await;
    until(None, || platform.dry_patch(namespace("marked"), &removed)).await;
}

#[tokio::test]
async fn ledgers_exist_only_in_the_operators_namespace() {
    let cluster = Cluster::connect().await;
    let ledger = |namespace: &str| {
        let owner = json!({"name": "acme", "uid": "u-1"});
        json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPLedger",
            "metadata": {"name": "l", "namespace": namespace},
            "spec": {"tenant": owner, "budget": owner, "start": "2026-11-22T00:00:00Z", "end": "2026-11-23T00:00:00Z"}})
    };
    assert!(cluster.namespace(OPERATOR_NAMESPACE, json!({})).await);
    for elsewhere in ["acme", "default"] {
        until(Some("exist only in its namespace mcp-fleet-system"), || cluster.dry_run(ledger(elsewhere))).await;
    }
    until(None, || cluster.dry_run(ledger(OPERATOR_NAMESPACE))).await;
}
