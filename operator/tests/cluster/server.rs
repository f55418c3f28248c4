//! Servers: which run, which are rejected, and teardown.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_crds::{MCPServer, MCPTenant};
use serde_json::json;

use crate::support::{
    create, eventually, namespace, server, tenant, unique, wait_for, wait_for_reason, wait_until_gone, wait_until_open,
    with_operator,
};

fn servers(client: &Client, namespace: &str) -> Api<MCPServer> {
    Api::namespaced(client.clone(), namespace)
}

/// Creates a tenant and waits until it is prepared. Returns its name and its runtime namespace.
async fn prepared_tenant(client: &Client, prefix: &str) -> (String, String) {
    let name = unique(prefix);
    tenant(client, &name, json!({})).await;
    let runtime = format!("{name}-mcp");
    wait_for(&Api::<Deployment>::namespaced(client.clone(), &runtime), "gateway").await;
    wait_until_open(client, &name).await;
    (name, runtime)
}

#[tokio::test]
async fn a_server_with_a_workspace_is_a_stateful_set_with_its_own_policy() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "files").await;
    server(&client, &name, "files", json!({"workspace": {"mountPath": "/workspace", "storage": "1Gi"}})).await;
    let set = wait_for(&Api::<StatefulSet>::namespaced(client.clone(), &runtime), "mcp-files").await;
    assert_eq!(set.spec.unwrap().volume_claim_templates.unwrap().len(), 1);
    let service = wait_for(&Api::<Service>::namespaced(client.clone(), &runtime), "mcp-files-pods").await;
    assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("None"));
    wait_for(&Api::<NetworkPolicy>::namespaced(client.clone(), &runtime), "mcp-files").await;
    wait_for(&Api::<Secret>::namespaced(client.clone(), &runtime), "mcp-files-tls").await;
    wait_for_reason(&servers(&client, &name), "files", "Ready", "WorkloadUnavailable").await;
}

#[tokio::test]
async fn a_change_reaches_the_workload_and_a_deleted_server_leaves_nothing() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "change").await;
    server(&client, &name, "files", json!({})).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &runtime);
    wait_for(&deployments, "mcp-files").await;
    let patch = json!({"spec": {"replicas": 2}});
    servers(&client, &name).patch("files", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    eventually("two replicas", || async {
        (deployments.get("mcp-files").await.unwrap().spec.unwrap().replicas == Some(2)).then_some(())
    })
    .await;
    servers(&client, &name).delete("files", &DeleteParams::default()).await.unwrap();
    wait_until_gone(&deployments, "mcp-files").await;
    wait_until_gone(&Api::<Service>::namespaced(client.clone(), &runtime), "mcp-files-pods").await;
    wait_until_gone(&Api::<Secret>::namespaced(client.clone(), &runtime), "mcp-files-tls").await;
    wait_until_gone(&Api::<NetworkPolicy>::namespaced(client.clone(), &runtime), "mcp-files").await;
    eventually("the server is gone", || async {
        servers(&client, &name).get_opt("files").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_keeps_running_when_its_new_image_is_not_allowed() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "image").await;
    server(&client, &name, "files", json!({})).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &runtime);
    wait_for(&deployments, "mcp-files").await;
    let patch = json!({"spec": {"source": {"stdio": {"image": "evil.example/files:1"}}}});
    servers(&client, &name).patch("files", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    wait_for_reason(&servers(&client, &name), "files", "Accepted", "ImageNotAllowed").await;
    let pod = deployments.get("mcp-files").await.unwrap().spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].image.as_deref(), Some("registry.example.com/acme/files:1"));
}

#[tokio::test]
async fn a_server_in_an_unclaimed_namespace_creates_nothing() {
    let client = with_operator().await;
    let name = unique("nobody");
    // The label names no tenant, so the API server takes the object.
    namespace(&client, &name, &[("mcp-fleet.dev/tenant", "nobody")]).await;
    server(&client, &name, "files", json!({})).await;
    wait_for_reason(&servers(&client, &name), "files", "Accepted", "NamespaceUnclaimed").await;
    assert!(servers(&client, &name).get("files").await.unwrap().finalizers().is_empty());
}

#[tokio::test]
async fn objects_of_a_server_that_is_gone_are_deleted() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "orphan").await;
    server(&client, &name, "files", json!({})).await;
    let services: Api<Service> = Api::namespaced(client.clone(), &runtime);
    // As if the server had been removed without a teardown: the same labels, with the UID of no server.
    let mut orphan = wait_for(&services, "mcp-files-pods").await;
    orphan.metadata.name = Some("mcp-former".into());
    orphan.metadata.resource_version = None;
    orphan.metadata.uid = None;
    orphan.metadata.labels.as_mut().unwrap().insert("mcp-fleet.dev/server-uid".into(), "nobody".into());
    services.create(&PostParams::default(), &orphan).await.unwrap();
    wait_until_gone(&services, "mcp-former").await;
    assert!(services.get_opt("mcp-files-pods").await.unwrap().is_some());
}

/// Creates a server with a workspace and, because no StatefulSet controller runs here, its volume claim. Returns the
/// server's UID and the name of the claim.
async fn server_with_claim(client: &Client, name: &str, runtime: &str, retain: &str) -> (String, String) {
    let workspace = json!({"mountPath": "/workspace", "storage": "1Gi", "retain": retain});
    let uid = server(client, name, "files", json!({"workspace": workspace})).await.uid().unwrap();
    let set = wait_for(&Api::<StatefulSet>::namespaced(client.clone(), runtime), "mcp-files").await.spec.unwrap();
    let retention = set.persistent_volume_claim_retention_policy.unwrap();
    assert_eq!(retention.when_deleted.as_deref(), Some("Retain"), "the data would go with the StatefulSet");
    let mut claim = set.volume_claim_templates.unwrap().remove(0);
    let claim_name = format!("{}-mcp-files-0", claim.metadata.name.unwrap());
    claim.metadata.name = Some(claim_name.clone());
    claim.status = None;
    Api::namespaced(client.clone(), runtime).create(&PostParams::default(), &claim).await.unwrap();
    (uid, claim_name)
}

async fn delete_server(client: &Client, namespace: &str) {
    servers(client, namespace).delete("files", &DeleteParams::default()).await.unwrap();
    eventually("the server is gone", || async {
        servers(client, namespace).get_opt("files").await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Returns the name of the claim template of the server `files`.
async fn template(client: &Client, runtime: &str) -> String {
    let set = wait_for(&Api::<StatefulSet>::namespaced(client.clone(), runtime), "mcp-files").await;
    set.spec.unwrap().volume_claim_templates.unwrap().remove(0).metadata.name.unwrap()
}

#[tokio::test]
async fn a_retained_workspace_is_marked_and_only_reattached_if_the_tenant_allows_it() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "retain").await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &runtime);
    let (old, claim) = server_with_claim(&client, &name, &runtime, "Retain").await;
    assert_eq!(claim, format!("workspace-{old}-mcp-files-0"));
    delete_server(&client, &name).await;
    let retained = claims.get(&claim).await.unwrap();
    assert!(retained.metadata.deletion_timestamp.is_none());
    let labels = retained.labels();
    assert_eq!((&labels["mcp-fleet.dev/tenant"], &labels["mcp-fleet.dev/server"]), (&name, &"files".to_owned()));
    assert_eq!(labels["mcp-fleet.dev/server-uid"], old);
    assert!(labels.contains_key("mcp-fleet.dev/retained-since"), "{labels:?}");

    let workspace = json!({"workspace": {"mountPath": "/workspace", "storage": "1Gi"}});
    let new = server(&client, &name, "files", workspace.clone()).await.uid().unwrap();
    assert_eq!(template(&client, &runtime).await, format!("workspace-{new}"));
    delete_server(&client, &name).await;

    let allow = Patch::Merge(json!({"spec": {"workspaces": {"reattach": "SameName"}}}));
    let tenants: Api<MCPTenant> = Api::all(client.clone());
    let allowed = tenants.patch(&name, &PatchParams::default(), &allow).await.unwrap().metadata.generation;
    eventually("the operator knows the change", || async {
        let conditions = tenants.get(&name).await.unwrap().status?.conditions;
        conditions.iter().any(|condition| condition.observed_generation == allowed).then_some(())
    })
    .await;
    let newest = server(&client, &name, "files", workspace).await.uid().unwrap();
    assert_eq!(template(&client, &runtime).await, format!("workspace-{old}"));
    let labels = claims.get(&claim).await.unwrap().labels().clone();
    assert_eq!(labels["mcp-fleet.dev/server-uid"], newest);
    assert!(!labels.contains_key("mcp-fleet.dev/retained-since"), "{labels:?}");
}

#[tokio::test]
async fn a_workspace_with_retain_delete_is_deleted_with_its_server() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "discard").await;
    let (_, claim) = server_with_claim(&client, &name, &runtime, "Delete").await;
    delete_server(&client, &name).await;
    wait_until_gone(&Api::<PersistentVolumeClaim>::namespaced(client.clone(), &runtime), &claim).await;
}

#[tokio::test]
async fn a_server_that_loses_its_finalizer_keeps_its_workspace() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "forced").await;
    let (_, claim) = server_with_claim(&client, &name, &runtime, "Delete").await;
    // A pod that does not end keeps the teardown waiting.
    let set = wait_for(&Api::<StatefulSet>::namespaced(client.clone(), &runtime), "mcp-files").await;
    let labels = set.spec.unwrap().template.metadata.unwrap().labels;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &runtime);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slow", "labels": labels, "finalizers": ["test/slow"]},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "slow", "image": "slow", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        },
    });
    create(&pods, pod).await;
    servers(&client, &name).delete("files", &DeleteParams::default()).await.unwrap();
    wait_for_reason(&servers(&client, &name), "files", "Ready", "Terminating").await;
    let forced = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    servers(&client, &name).patch("files", &PatchParams::default(), &forced).await.unwrap();
    // A reconcile of the tenant finds the orphans.
    let noted = Patch::Merge(json!({"spec": {"hard": {"pods": "30"}}}));
    Api::<MCPTenant>::all(client.clone()).patch(&name, &PatchParams::default(), &noted).await.unwrap();
    wait_until_gone(&Api::<StatefulSet>::namespaced(client.clone(), &runtime), "mcp-files").await;
    let retained = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &runtime).get(&claim).await.unwrap();
    assert!(retained.metadata.deletion_timestamp.is_none());
    assert!(retained.labels().contains_key("mcp-fleet.dev/retained-since"));
    let done = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("slow", &PatchParams::default(), &done).await.unwrap();
}
