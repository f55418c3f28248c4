//! Servers: which run, which are rejected, and teardown.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_crds::MCPServer;
use serde_json::json;

use crate::support::{
    eventually, namespace, server, tenant, unique, wait_for, wait_for_reason, wait_until_gone, with_operator,
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
    (name, runtime)
}

#[tokio::test]
async fn a_server_with_a_workspace_is_a_stateful_set_with_its_own_policy() {
    let client = with_operator().await;
    let (name, runtime) = prepared_tenant(&client, "files").await;
    server(&client, &name, "files", json!({"workspace": {"mountPath": "/workspace", "storage": "1Gi"}})).await;
    let set = wait_for(&Api::<StatefulSet>::namespaced(client.clone(), &runtime), "mcp-files").await;
    assert_eq!(set.spec.unwrap().volume_claim_templates.unwrap().len(), 1);
    wait_for(&Api::<Service>::namespaced(client.clone(), &runtime), "mcp-files").await;
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
    wait_until_gone(&Api::<Service>::namespaced(client.clone(), &runtime), "mcp-files").await;
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
    namespace(&client, &name, &[]).await;
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
    let mut orphan = wait_for(&services, "mcp-files").await;
    orphan.metadata.name = Some("mcp-former".into());
    orphan.metadata.resource_version = None;
    orphan.metadata.uid = None;
    orphan.metadata.labels.as_mut().unwrap().insert("mcp-fleet.dev/server-uid".into(), "nobody".into());
    let spec = orphan.spec.as_mut().unwrap();
    (spec.cluster_ip, spec.cluster_ips) = (None, None);
    services.create(&PostParams::default(), &orphan).await.unwrap();
    wait_until_gone(&services, "mcp-former").await;
    assert!(services.get_opt("mcp-files").await.unwrap().is_some());
}
