//! Tenants: namespaces, restrictions, drift, conflicts, teardown.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_crds::MCPTenant;
use serde_json::json;

use crate::support::{
    OPERATOR_NAMESPACE, create, eventually, namespace, settled, tenant, unique, untyped, wait_for, wait_for_reason,
    wait_until_gone, with_operator,
};

fn tenants(client: &Client) -> Api<MCPTenant> {
    Api::all(client.clone())
}

async fn labels_of(client: &Client, name: &str) -> BTreeMap<String, String> {
    wait_for(&Api::<Namespace>::all(client.clone()), name).await.labels().clone()
}

#[tokio::test]
async fn a_tenant_gets_two_namespaces_and_an_isolated_gateway() {
    let client = with_operator().await;
    let name = unique("made");
    let hard = json!({"hard": {"pods": "20", "count/mcpservers.mcp-fleet.dev": "5"}});
    let uid = tenant(&client, &name, hard).await.uid().unwrap();
    let runtime = format!("{name}-mcp");

    wait_for(&Api::<Deployment>::namespaced(client.clone(), &runtime), "gateway").await;
    assert_eq!(labels_of(&client, &name).await["mcp-fleet.dev/tenant"], name);
    let labels = labels_of(&client, &runtime).await;
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(labels["mcp-fleet.dev/tenant-uid"], uid);

    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &runtime);
    let deny = wait_for(&policies, "default-deny").await.spec.unwrap();
    assert!(deny.ingress.is_none() && deny.egress.is_none());
    assert_eq!(deny.policy_types.unwrap(), ["Ingress", "Egress"]);
    wait_for(&policies, "gateway").await;

    wait_for(&Api::<Service>::namespaced(client.clone(), &runtime), "gateway").await;
    wait_for(&Api::<PodDisruptionBudget>::namespaced(client.clone(), &runtime), "gateway").await;
    let quota = wait_for(&Api::<ResourceQuota>::namespaced(client.clone(), &runtime), "mcp-fleet").await;
    assert_eq!(quota.spec.unwrap().hard.unwrap().keys().collect::<Vec<_>>(), ["pods"]);
    wait_for(&Api::<ResourceQuota>::namespaced(client.clone(), &name), "mcp-fleet").await;
    for place in [&name, &runtime] {
        wait_for(&Api::<RoleBinding>::namespaced(client.clone(), place), "mcp-fleet-operator").await;
    }
    let tls = wait_for(&Api::<Secret>::namespaced(client.clone(), &runtime), "gateway-tls").await;
    assert_eq!(tls.data.unwrap().keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
    wait_for(&Api::<Secret>::namespaced(client.clone(), OPERATOR_NAMESPACE), &format!("tenant-{uid}-signing")).await;
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;
}

#[tokio::test]
async fn deleted_and_changed_objects_are_restored() {
    let client = with_operator().await;
    let name = unique("drift");
    tenant(&client, &name, json!({})).await;
    let runtime = format!("{name}-mcp");
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;

    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &runtime);
    let before = wait_for(&policies, "default-deny").await.uid();
    policies.delete("default-deny", &DeleteParams::default()).await.unwrap();
    eventually("the policy is restored", || async {
        policies.get_opt("default-deny").await.unwrap().filter(|found| found.uid() != before)
    })
    .await;

    // Someone else adds a container and scales. Both changes are undone, not merged.
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &runtime);
    let patch = json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [
        {"name": "evil", "image": "evil.example/miner:1"}]}}}});
    let params = PatchParams { field_manager: Some("intruder".into()), ..PatchParams::default() };
    let changed = deployments.patch("gateway", &params, &Patch::Strategic(patch)).await.unwrap().spec.unwrap();
    assert_eq!((changed.replicas, changed.template.spec.unwrap().containers.len()), (Some(3), 2));
    eventually("the gateway is restored", || async {
        let spec = deployments.get("gateway").await.unwrap().spec.unwrap();
        (spec.replicas == Some(1) && spec.template.spec.unwrap().containers.len() == 1).then_some(())
    })
    .await;

    let opened = json!({"spec": {"ingress": [{}]}});
    let changed = policies.patch("default-deny", &params, &Patch::Merge(opened)).await.unwrap();
    assert!(changed.spec.unwrap().ingress.is_some());
    eventually("the policy denies again", || async {
        policies.get("default-deny").await.unwrap().spec.unwrap().ingress.is_none().then_some(())
    })
    .await;

    let namespaces: Api<Namespace> = Api::all(client.clone());
    let loosened = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    let changed = namespaces.patch(&runtime, &params, &Patch::Merge(loosened)).await.unwrap();
    assert_eq!(changed.labels()["pod-security.kubernetes.io/enforce"], "privileged");
    eventually("pods are restricted again", || async {
        let labels = namespaces.get(&runtime).await.unwrap().labels().clone();
        (labels["pod-security.kubernetes.io/enforce"] == "restricted").then_some(())
    })
    .await;

    let secrets: Api<Secret> = Api::namespaced(client.clone(), &runtime);
    secrets.delete("gateway-tls", &DeleteParams::default()).await.unwrap();
    wait_for(&secrets, "gateway-tls").await;

    // The same key is restored, not a new one, so tokens and sessions stay valid.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let signing = format!("tenant-{}-signing", tenants(&client).get(&name).await.unwrap().uid().unwrap());
    let before = secrets.get(&signing).await.unwrap();
    secrets.delete(&signing, &DeleteParams::default()).await.unwrap();
    assert_eq!(wait_for(&secrets, &signing).await.data, before.data);
    let planted = json!({"data": {"session": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}});
    secrets.patch(&signing, &params, &Patch::Merge(planted)).await.unwrap();
    eventually("the keys are restored", || async {
        (secrets.get(&signing).await.unwrap().data == before.data).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_tenant_causes_no_writes() {
    let client = with_operator().await;
    let name = unique("quiet");
    tenant(&client, &name, json!({"hard": {"limits.cpu": "1000m"}})).await;
    let runtime = format!("{name}-mcp");
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;
    let versions = || async {
        let mut found = vec![tenants(&client).get(&name).await.unwrap().resource_version()];
        for (version, kind) in [
            ("apps/v1", "Deployment"),
            ("v1", "Service"),
            ("v1", "Secret"),
            ("v1", "ResourceQuota"),
            ("v1", "LimitRange"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("policy/v1", "PodDisruptionBudget"),
            ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ] {
            let objects = untyped(&client, &runtime, version, kind).list(&ListParams::default()).await.unwrap();
            found.extend(objects.iter().map(ResourceExt::resource_version));
        }
        found
    };
    // The snapshot is created last, maybe after the gateway. Wait for it, so that it is not counted.
    wait_for(&Api::<Secret>::namespaced(client.clone(), &runtime), "gateway-policy").await;
    let before = settled(versions).await;
    // An annotation triggers a reconcile, which has nothing to write.
    let params = PatchParams::default();
    let noted = json!({"metadata": {"annotations": {"note": "reconcile"}}});
    tenants(&client).patch(&name, &params, &Patch::Merge(noted)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(before[1..], versions().await[1..]);
}

#[tokio::test]
async fn of_two_tenants_that_claim_a_namespace_the_older_keeps_it() {
    let client = with_operator().await;
    let (old, new) = (unique("older"), unique("newer"));
    tenant(&client, &old, json!({})).await;
    wait_for_reason(&tenants(&client), &old, "Ready", "GatewayUnavailable").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    tenant(&client, &new, json!({"namespace": {"name": old}})).await;
    let message = wait_for_reason(&tenants(&client), &new, "Stalled", "Conflicted").await;
    assert!(message.contains(&old), "{message}");
    assert!(Api::<Namespace>::all(client.clone()).get_opt(&format!("{new}-mcp")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_namespace_is_adopted_once_it_is_labelled() {
    let client = with_operator().await;
    let name = unique("adopt");
    namespace(&client, &name, &[]).await;
    tenant(&client, &name, json!({})).await;
    let message = wait_for_reason(&tenants(&client), &name, "Ready", "NamespaceNotAdoptable").await;
    assert!(message.contains(&format!("kubectl label namespace {name} mcp-fleet.dev/tenant={name}")), "{message}");
    let label = json!({"metadata": {"labels": {"mcp-fleet.dev/tenant": name}}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(&name, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;
}

#[tokio::test]
async fn an_existing_runtime_namespace_is_never_adopted() {
    let client = with_operator().await;
    let name = unique("squat");
    namespace(&client, &format!("{name}-mcp"), &[("mcp-fleet.dev/tenant", &name)]).await;
    tenant(&client, &name, json!({})).await;
    wait_for_reason(&tenants(&client), &name, "Ready", "NamespaceNotAdoptable").await;
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &format!("{name}-mcp"));
    assert!(policies.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_quota_that_the_api_server_rejects_is_reported() {
    let client = with_operator().await;
    let name = unique("quota");
    tenant(&client, &name, json!({"hard": {"not a resource": "1"}})).await;
    let message = wait_for_reason(&tenants(&client), &name, "Stalled", "Failed").await;
    assert!(message.contains("ResourceQuota"), "{message}");
}

#[tokio::test]
async fn a_deleted_tenant_leaves_only_its_own_namespace() {
    let client = with_operator().await;
    let name = unique("leave");
    let uid = tenant(&client, &name, json!({"hard": {"count/mcpservers.mcp-fleet.dev": "5"}})).await.uid().unwrap();
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;
    let secrets = Api::<Secret>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    wait_for(&secrets, &format!("tenant-{uid}-signing")).await;
    // An object of the tenant, which has to stay.
    let own = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own", "namespace": name}});
    create(&untyped(&client, &name, "v1", "ConfigMap"), own).await;

    tenants(&client).delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("the tenant is gone", || async {
        tenants(&client).get_opt(&name).await.unwrap().is_none().then_some(())
    })
    .await;
    wait_until_gone(&secrets, &format!("tenant-{uid}-signing")).await;
    wait_until_gone(&Api::<Namespace>::all(client.clone()), &format!("{name}-mcp")).await;
    wait_until_gone(&Api::<RoleBinding>::namespaced(client.clone(), &name), "mcp-fleet-operator").await;
    wait_until_gone(&Api::<ResourceQuota>::namespaced(client.clone(), &name), "mcp-fleet").await;
    let namespace = Api::<Namespace>::all(client.clone()).get(&name).await.unwrap();
    assert!(namespace.metadata.deletion_timestamp.is_none());
    assert!(untyped(&client, &name, "v1", "ConfigMap").get_opt("own").await.unwrap().is_some());
}

#[tokio::test]
async fn pods_end_before_their_restrictions_are_deleted() {
    let client = with_operator().await;
    let name = unique("order");
    tenant(&client, &name, json!({})).await;
    let runtime = format!("{name}-mcp");
    wait_for_reason(&tenants(&client), &name, "Ready", "GatewayUnavailable").await;
    // No kubelet runs here, so a finalizer makes the pod end slowly.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "slow", "namespace": runtime, "finalizers": ["test/slow"],
            "labels": {"app.kubernetes.io/managed-by": "mcp-fleet"}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "slow", "image": "slow", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        },
    });
    let pods = untyped(&client, &runtime, "v1", "Pod");
    create(&pods, pod).await;
    tenants(&client).delete(&name, &DeleteParams::default()).await.unwrap();
    wait_for_reason(&tenants(&client), &name, "Ready", "Terminating").await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &runtime);
    assert_eq!(deployments.get("gateway").await.unwrap().spec.unwrap().replicas, Some(0));
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &runtime);
    assert!(policies.get_opt("default-deny").await.unwrap().is_some());

    pods.delete("slow", &DeleteParams::default().grace_period(0)).await.unwrap();
    let done = json!({"metadata": {"finalizers": null}});
    pods.patch("slow", &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    eventually("the tenant is gone", || async {
        tenants(&client).get_opt(&name).await.unwrap().is_none().then_some(())
    })
    .await;
}
