//! Loops: their settings reach the gateways, and people see refused ones.

use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mcp_fleet_control::wire::{LoopReport, from_gateway};
use mcp_fleet_crds::{MCPPrincipal, MCPServer};
use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
use mcp_fleet_policy::model::TenantPolicy;
use serde_json::json;

use crate::control::tenant_with_policy;
use crate::gateway::Gateway;
use crate::support::{eventually, with_operator};

#[tokio::test]
async fn settings_of_loops_reach_gateways_and_a_refused_loop_becomes_an_event() {
    let client = with_operator().await;
    let (name, _) = tenant_with_policy(&client).await;
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let servers: Api<MCPServer> = Api::namespaced(client.clone(), &name);
    let tools = json!([{"name": "read", "class": "Read", "price": {"perCall": "0.001"}, "polls": "Tolerated"}]);
    let patch = json!({"spec": {"loops": {"mode": "Monitor", "identicalCalls": 5}, "tools": tools}});
    servers.patch("files", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let expected = LoopSettings { mode: Mode::Monitor, identical_calls: 5, ..LoopSettings::DEFAULT };
    let in_force = |policy: &TenantPolicy| {
        policy.servers.iter().any(|server| server.loops == expected) && !policy.principals.is_empty()
    };
    let policy = gateway.policy(in_force).await;
    assert_eq!(policy.servers[0].tools[0].polls, Polls::Tolerated);
    // A gateway that starts later gets the same from what is published.
    drop(gateway);
    let mut gateway = Gateway::connect(&client, &format!("{name}-mcp")).await;
    let policy = gateway.policy(in_force).await;
    assert_eq!((policy.servers[0].loops, policy.servers[0].tools[0].polls), (expected, Polls::Tolerated));

    let principals: Api<MCPPrincipal> = Api::namespaced(client.clone(), &name);
    let uid = principals.get("coder").await.unwrap().uid().unwrap();
    for principal_uid in ["uid-of-a-stranger", &uid, &uid] {
        let report = LoopReport {
            principal_uid: principal_uid.into(),
            server: "files".into(),
            tool: "read".into(),
            kind: "cycle".into(),
            count: 6,
            duration_ms: 61_000,
            cool_down: true,
        };
        gateway.send(from_gateway::Message::Loop(report)).await;
    }
    let events: Api<Event> = Api::namespaced(client.clone(), &name);
    let found = || async {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events.into_iter().find(|event| event.reason.as_deref() == Some("LoopDetected"))
    };
    let event = eventually("the Event is written", found).await;
    assert_eq!(event.regarding.as_ref().unwrap().name.as_deref(), Some("coder"));
    assert!(event.note.as_deref().unwrap().contains("(cycle, 6 times in 61 s) with the tool read"), "{event:?}");
}
