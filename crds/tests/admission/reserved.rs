//! The objects in a tenant's own namespace that only the operator writes.

use serde_json::{Value, json};

use crate::cases::merged;
use crate::support::{Cluster, of_tenant, until};

/// What the role `admin` permits in a namespace, as far as it matters here.
fn admin() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"], "verbs": ["*"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"]},
    ])
}

fn objects(namespace: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "y"},
            "metadata": {"name": "mcp-fleet-tenant", "namespace": namespace}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "mcp-fleet-operator", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}}),
    ]
}

#[tokio::test]
async fn a_tenants_administrator_cannot_write_what_is_the_operators() {
    let cluster = Cluster::connect().await;
    let admin = cluster.user("tenant-admin", &admin()).await;
    // The controller that empties deleted namespaces has these rights.
    let cleaner =
        cluster.user("cleaner", &json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["delete"]}])).await;
    assert!(cluster.namespace("reserved", of_tenant("reserved")).await && cluster.namespace("free", json!({})).await);
    let refused = Some("belong to the operator");
    for object in objects("reserved") {
        until(refused, || admin.dry_run(&object)).await;
        let other = merged(&object, &json!({"metadata": {"name": "mine"}}));
        until(None, || admin.dry_run(&other)).await;
        cluster.create(&object).await.unwrap();
        until(refused, || admin.dry_patch(&object, json!({"metadata": {"labels": {"x": "y"}}}))).await;
        until(refused, || admin.dry_delete(&object)).await;
        until(None, || cleaner.dry_delete(&object)).await;
    }
    for object in objects("free") {
        until(None, || admin.dry_run(&object)).await;
    }
}
