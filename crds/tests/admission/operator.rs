//! What the operator's own token permits, also to a thief. RBAC would permit everything here.

use serde_json::{Value, json};

use crate::cases::merged;
use crate::support::{Cluster, OPERATOR_NAMESPACE, of_tenant, until};

const USER: &str = "system:serviceaccount:mcp-fleet-system:mcp-fleet-operator";

/// Returns a client that authenticates as the operator, and that RBAC permits everything.
async fn operator(cluster: &Cluster) -> Cluster {
    cluster.user(USER, &json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])).await
}

fn runtime(name: &str) -> Value {
    json!({"mcp-fleet.dev/tenant": name, "mcp-fleet.dev/tenant-uid": "u-1",
        "pod-security.kubernetes.io/enforce": "restricted"})
}

fn binding(namespace: &str, role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "mcp-fleet-operator", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "mcp-fleet-operator", "namespace": OPERATOR_NAMESPACE}],
    })
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

#[tokio::test]
async fn the_operator_binds_only_itself_to_its_roles_in_namespaces_of_tenants() {
    let cluster = Cluster::connect().await;
    let operator = operator(&cluster).await;
    assert!(cluster.namespace("pinned", of_tenant("pinned")).await);
    assert!(cluster.namespace("pinned-mcp", runtime("pinned")).await);
    assert!(cluster.namespace("pinned-other", json!({})).await);
    let (own, in_runtime) =
        (binding("pinned", "mcp-fleet-operator-tenant"), binding("pinned-mcp", "mcp-fleet-operator-runtime"));
    until(None, || operator.dry_run(&own)).await;
    until(None, || operator.dry_run(&in_runtime)).await;

    let elsewhere = Some("only in namespaces with the label");
    for (place, role) in [
        ("pinned-other", "mcp-fleet-operator-tenant"),
        ("kube-system", "mcp-fleet-operator-tenant"),
        ("default", "mcp-fleet-operator-runtime"),
    ] {
        until(elsewhere, || operator.dry_run(binding(place, role))).await;
    }
    until(elsewhere, || operator.dry_run(merged(&own, &json!({"metadata": {"name": "another"}})))).await;

    let itself = Some("may bind only itself");
    let stranger = json!({"kind": "ServiceAccount", "name": "evil", "namespace": "pinned"});
    let mut both = own["subjects"].as_array().unwrap().clone();
    both.push(stranger.clone());
    for patch in [
        json!({"roleRef": {"name": "cluster-admin"}}),
        json!({"roleRef": {"name": "mcp-fleet-operator-runtime"}}),
        json!({"roleRef": {"kind": "Role"}}),
        json!({"subjects": [stranger]}),
        json!({"subjects": both}),
        json!({"subjects": []}),
        json!({"subjects": [{"kind": "ServiceAccount", "name": "mcp-fleet-operator", "namespace": "pinned"}]}),
    ] {
        until(itself, || operator.dry_run(merged(&own, &patch))).await;
    }
}

#[tokio::test]
async fn the_operator_removes_a_foreign_binding_of_its_name_and_no_other() {
    let cluster = Cluster::connect().await;
    let operator = operator(&cluster).await;
    assert!(cluster.namespace("repaired", of_tenant("repaired")).await);
    let foreign = merged(&binding("repaired", "view"), &json!({"metadata": {"finalizers": ["test/held"]}}));
    cluster.create(&foreign).await.unwrap();
    until(None, || operator.dry_patch(&foreign, json!({"metadata": {"finalizers": null}}))).await;
    until(Some("may bind only itself"), || operator.dry_patch(&foreign, json!({"subjects": []}))).await;
    until(None, || operator.dry_delete(&foreign)).await;
    let other = merged(&binding("repaired", "view"), &json!({"metadata": {"name": "viewers"}}));
    cluster.create(&other).await.unwrap();
    until(Some("only RoleBindings named"), || operator.dry_delete(&other)).await;
    until(Some("only RoleBindings named"), || operator.dry_patch(&other, json!({"subjects": []}))).await;
}

#[tokio::test]
async fn the_operator_writes_only_namespaces_that_it_made() {
    let cluster = Cluster::connect().await;
    let operator = operator(&cluster).await;
    assert!(cluster.namespace("spared", json!({})).await && cluster.namespace("spared-mcp", runtime("spared")).await);
    let marked = json!({"metadata": {"labels": {"mcp-fleet.dev/tenant": "evil", "mcp-fleet.dev/tenant-uid": "u-1"}}});

    until(None, || operator.dry_run(namespace("spared-new", of_tenant("x")))).await;
    until(None, || operator.dry_run(namespace("spared-new", runtime("x")))).await;
    until(Some("create only namespaces with the label"), || operator.dry_run(namespace("spared-new", json!({})))).await;

    for name in ["kube-system", "default", OPERATOR_NAMESPACE] {
        assert!(name != OPERATOR_NAMESPACE || cluster.namespace(name, json!({})).await);
        let system = namespace(name, json!({}));
        until(Some("may not write namespaces of Kubernetes or its own"), || operator.dry_patch(&system, &marked)).await;
    }
    // Kubernetes itself keeps anyone from deleting its own.
    let own = namespace(OPERATOR_NAMESPACE, json!({}));
    until(Some("namespaces of Kubernetes or its own"), || operator.dry_delete(&own)).await;
    let other = namespace("spared", json!({}));
    until(Some("may change only runtime namespaces"), || operator.dry_patch(&other, &marked)).await;
    until(Some("may delete only namespaces that it created"), || operator.dry_delete(&other)).await;

    let own = namespace("spared-mcp", json!({}));
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    until(None, || operator.dry_patch(&own, labels(json!({"mcp-fleet.dev/tenant": null})))).await;
    until(None, || operator.dry_patch(&own, labels(json!({"pod-security.kubernetes.io/enforce": "baseline"})))).await;
    for level in [json!("privileged"), json!(null)] {
        let loosened = labels(json!({"pod-security.kubernetes.io/enforce": level}));
        until(Some("Pod Security Standard"), || operator.dry_patch(&own, &loosened)).await;
    }
    let other_tenant = labels(json!({"mcp-fleet.dev/tenant-uid": "u-2"}));
    until(Some("and not that label"), || operator.dry_patch(&own, &other_tenant)).await;
    until(None, || operator.dry_delete(&own)).await;
}

#[tokio::test]
async fn the_operator_changes_no_spec() {
    let cluster = Cluster::connect().await;
    let operator = operator(&cluster).await;
    assert!(cluster.namespace("unspoilt", of_tenant("unspoilt")).await);
    let tenant = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant", "metadata": {"name": "unspoilt"},
        "spec": {"namespace": {"name": "unspoilt"}}});
    cluster.create(&tenant).await.unwrap();
    let refused = Some("may change only the finalizers");
    until(refused, || operator.dry_patch(&tenant, json!({"spec": {"images": {"allowed": ["**"]}}}))).await;
    until(refused, || operator.dry_patch(&tenant, json!({"metadata": {"labels": {"x": "y"}}}))).await;
    until(None, || operator.dry_patch(&tenant, json!({"metadata": {"finalizers": ["mcp-fleet.dev/teardown"]}}))).await;
    until(None, || cluster.dry_patch(&tenant, json!({"spec": {"images": {"allowed": ["**"]}}}))).await;
}
