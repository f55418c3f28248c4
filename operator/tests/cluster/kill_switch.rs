//! The fleet's kill switch. It stops all gateways of all tests, which do not mind: none of them makes calls.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use mcp_fleet_control::feature;
use mcp_fleet_control::wire::{KillSwitch, from_operator};
use serde_json::json;

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::{OPERATOR_NAMESPACE, create, eventually, with_operator};

const NAME: &str = "mcp-fleet-kill-switch";

async fn has_event(client: &Client, reason: &str) {
    let events: Api<Event> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    eventually(&format!("the Event {reason}"), || async {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let about = |event: &Event| event.regarding.as_ref().and_then(|about| about.name.clone());
        let wanted = |event: &Event| event.reason.as_deref() == Some(reason) && about(event).as_deref() == Some(NAME);
        events.iter().any(wanted).then_some(())
    })
    .await;
}

/// Waits for a message that says whether calls are stopped, and returns the switch.
async fn told(gateway: &mut Gateway, stop: bool) -> KillSwitch {
    loop {
        if let from_operator::Message::KillSwitch(switch) = gateway.next().await.expect("the stream ended")
            && switch.stop == stop
        {
            return switch;
        }
    }
}

#[tokio::test]
async fn the_kill_switch_reaches_all_gateways_until_it_is_deleted() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let runtime = format!("{name}-mcp");
    let switches: Api<ConfigMap> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let mut gateway = Gateway::connect(&client, &runtime).await;
    told(&mut gateway, false).await;
    assert!(!gateway.freshness().await.kill_switch.unwrap().stop);

    let map = json!({"metadata": {"name": NAME}, "data": {"stop": "true", "reason": "credentials\nleaked"}});
    create(&switches, map).await;
    assert_eq!(told(&mut gateway, true).await.reason, "credentials leaked");
    assert!(gateway.freshness().await.kill_switch.unwrap().stop);
    has_event(&client, "FleetStopped").await;
    // A gateway that connects now is told before it gets anything that would let it admit calls.
    let mut late = Gateway::connect(&client, &runtime).await;
    assert!(matches!(late.next().await, Some(from_operator::Message::KillSwitch(KillSwitch { stop: true, .. }))));
    // One that does not obey the switch gets no proof.
    let mut older = Gateway::connect_with(&client, &runtime, feature::known()).await;
    older.policy(|_| true).await;
    // The operator sent these proofs to the gateway that connected first.
    for _ in 0..2 {
        assert!(late.freshness().await.kill_switch.unwrap().stop);
    }

    let patch = Patch::Merge(json!({"data": {"stop": "no"}}));
    switches.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    has_event(&client, "KillSwitchInvalid").await;
    switches.delete(NAME, &DeleteParams::default()).await.unwrap();
    told(&mut gateway, false).await;
    has_event(&client, "FleetResumed").await;
    // Not before: its first proof comes once calls are allowed.
    assert!(!older.freshness().await.kill_switch.unwrap().stop);
}
