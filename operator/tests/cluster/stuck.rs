//! Agents that reported that they are stuck, and people who clear that.

use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mcp_fleet_control::wire::{StuckReport, from_gateway};
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_crds::names::CLEAR_BREAKERS;
use serde_json::json;

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::{eventually, with_operator};

#[tokio::test]
async fn people_see_a_stuck_agent_as_an_event_and_clear_it_with_an_annotation() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    gateway.policy(|policy| !policy.servers.is_empty() && !policy.principals.is_empty()).await;
    let principals: Api<MCPPrincipal> = Api::namespaced(client.clone(), &name);
    let uid = principals.get("coder").await.unwrap().uid().unwrap();
    let report = |principal_uid: &str| {
        from_gateway::Message::Stuck(StuckReport {
            principal_uid: principal_uid.into(),
            server: "files".into(),
            tool: "read".into(),
            reason: "no\nprogress".into(),
        })
    };
    gateway.send(report("uid-of-a-stranger")).await;
    for _ in 0..3 {
        gateway.send(report(&uid)).await;
    }
    let events: Api<Event> = Api::namespaced(client.clone(), &name);
    let stuck = || async {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events.into_iter().filter(|event| event.reason.as_deref() == Some("AgentStuck")).collect::<Vec<_>>()
    };
    eventually("the Event is written", || async { (!stuck().await.is_empty()).then_some(()) }).await;
    let at = "2026-11-22T12:00:00Z";
    let patch = json!({"metadata": {"annotations": {CLEAR_BREAKERS: at}}});
    principals.patch("coder", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    gateway.policy(|policy| policy.principals[0].breakers_cleared == Some(1_795_348_800)).await;
    // All reports were handled before the policy was acknowledged.
    let events = stuck().await;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.regarding.as_ref().unwrap().name.as_deref(), Some("coder"));
    assert!(event.series.is_none(), "a repeated report was counted");
    let note = event.note.as_deref().unwrap();
    assert!(note.contains("with the tool read") && note.ends_with("unchecked: \"no progress\""), "{note}");
}
