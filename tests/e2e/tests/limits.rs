//! Attacks on limits, and limits that become stricter, on a real cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

use std::sync::Arc;
use std::time::Duration;

use kube::{Api, ResourceExt as _};
use mcp_fleet_crds::condition::{ConditionType, find};
use mcp_fleet_crds::{MCPServer, MCPTenant};
use mcp_fleet_e2e::{Answer, FaultTenant, GATEWAYS, NAMESPACE, RUNTIME, until};
use serde_json::{Value, json};

/// Connections of a flood: as many as once killed a gateway with a memory limit of 256 MiB.
const CONNECTIONS: usize = 684;

/// Returns the pods of the gateway, with the number of restarts of each.
async fn gateways(tenant: &FaultTenant) -> Vec<(String, i32)> {
    let pods = tenant.pods(RUNTIME, GATEWAYS).await.unwrap();
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        Some(statuses.iter().map(|status| status.restart_count).sum())
    };
    pods.iter().map(|pod| (pod.name_any(), restarts(pod).unwrap_or(-1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_without_their_last_byte_do_not_kill_the_gateway() {
    let tenant = FaultTenant::ready().await.unwrap();
    let attacker = Arc::new(tenant.caller("first").await.unwrap());
    let other = tenant.caller("second").await.unwrap();
    let before = gateways(&tenant).await;
    let mut attack = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let attacker = Arc::clone(&attacker);
        attack.spawn(async move { attacker.call_without_last_byte("quiet", "echo", 256 * 1024).await });
    }
    for round in 0..30 {
        let answer = other.call_with_word("quiet", "echo", "unharmed").await;
        assert!(matches!(&answer, Answer::Text(text) if text == "unharmed"), "call {round}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    attack.shutdown().await;
    assert_eq!(gateways(&tenant).await, before);
    // What the attacker held is free again.
    until("the attacker to be served", Duration::from_secs(30), || async {
        match attacker.call_with_word("quiet", "echo", "back").await {
            Answer::Text(text) if text == "back" => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn servers_whose_image_is_no_longer_allowed_are_stopped_if_the_tenant_says_so() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("second").await.unwrap();
    let pods = async || tenant.pods(RUNTIME, "app.kubernetes.io/component=server").await.unwrap().len();
    let running = pods().await;
    let listed = caller.tools("quiet").await.unwrap();
    assert!(listed.iter().any(|tool| tool == "echo"), "{listed:?}");
    patch(&tenant, &json!({"images": {"allowed": []}})).await;
    until("the servers to be rejected", Duration::from_secs(30), || async {
        reason_is(&tenant, "ImageNotAllowed").await
    })
    .await
    .unwrap();
    // With `enforcement: Keep` they go on.
    let answer = caller.call_with_word("quiet", "echo", "still").await;
    assert!(matches!(&answer, Answer::Text(text) if text == "still"), "{answer:?}");
    assert_eq!(pods().await, running);

    patch(&tenant, &json!({"enforcement": "ScaleToZero"})).await;
    until("the pods to end", Duration::from_secs(90), || async { Ok((pods().await == 0).then_some(())) })
        .await
        .unwrap();
    let answer = caller.call_with_word("quiet", "echo", "gone").await;
    assert_eq!(answer.reason(), Some("upstream_unavailable"), "{answer:?}");
    assert_eq!(caller.tools("quiet").await.unwrap(), listed, "an agent that connects now finds other tools");

    patch(&tenant, &json!({"images": {"allowed": ["**"]}, "enforcement": "Keep"})).await;
    until("the servers to answer again", Duration::from_secs(120), || async {
        match caller.call_with_word("quiet", "echo", "back").await {
            Answer::Text(text) if text == "back" => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
}

/// Changes the spec of the tenant.
async fn patch(tenant: &FaultTenant, spec: &Value) {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    let patch = kube::api::Patch::Merge(json!({"spec": spec}));
    tenants.patch(NAMESPACE, &kube::api::PatchParams::default(), &patch).await.unwrap();
}

/// Whether all servers are not ready for this reason.
async fn reason_is(tenant: &FaultTenant, reason: &str) -> anyhow::Result<Option<()>> {
    let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    let all = servers.list(&kube::api::ListParams::default()).await?;
    let has_reason = |server: &MCPServer| {
        let conditions = server.status.iter().flat_map(|status| &status.conditions).cloned().collect::<Vec<_>>();
        find(&conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
    };
    Ok(all.items.iter().all(has_reason).then_some(()))
}
