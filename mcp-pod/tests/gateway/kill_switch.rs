//! The fleet's kill switch: no call reaches a server while it is on.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::support::{Behaviour, Spent, TestGateway, Token, eventually, hold_calls, release_all};

const NOW: Duration = Duration::ZERO;
const DONE: Bytes = Bytes::from_static(b"{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n");

fn stop(gateway: &TestGateway) {
    gateway.state.set_kill_switch(NOW, Some("credentials leaked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_refused_with_the_reason_until_the_switch_is_off() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    stop(&gateway);
    // A tool that is not granted is not distinguished from others, and built-in tools are no exception.
    for tool in ["echo", "wipe", "nope", "fleet_status", "fleet_report_stuck"] {
        let answer = client.call(tool, json!({})).await;
        let (reason, text) = answer.denial();
        assert_eq!(reason, "fleet_stopped", "{tool}");
        assert!(text.contains("all tool calls: \"credentials leaked\""), "{text}");
        let denial = &answer.json()["result"]["_meta"]["mcp-fleet.dev/denial"];
        assert_eq!(denial["limit"], "the platform team has stopped all tool calls: \"credentials leaked\"");
    }
    for line in gateway.audit_lines(5).await {
        assert_eq!((line["decision"].as_str(), line["reason"].as_str()), (Some("denied"), Some("fleet_stopped")));
    }
    assert!(gateway.metrics().contains("\nmcp_fleet_kill_switch 1\n"));
    assert!(
        client.modern("tools/list", json!({})).await.json()["result"]["tools"].is_array(),
        "only calls are stopped"
    );
    // An agent that had a session has the same answer.
    client.initialize("2025-11-25").await;
    assert_eq!(client.legacy_call("echo", json!({})).await.denial().0, "fleet_stopped");
    assert!(gateway.shim.calls().is_empty() && !gateway.ledger.has_granted());

    gateway.state.set_kill_switch(NOW, None);
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    assert!(gateway.metrics().contains("\nmcp_fleet_kill_switch 0\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_policy_does_not_lift_the_stop() {
    let gateway = TestGateway::new().await;
    stop(&gateway);
    gateway.change_policy(|policy| policy.principals[0].limits.calls_per_minute = Some(100));
    let mut client = gateway.client().await;
    assert_eq!(client.call("echo", json!({})).await.denial().0, "fleet_stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_lease_are_refused() {
    let gateway = TestGateway::with(|policy| policy.principals[0].limits.max_concurrent_calls = Some(40)).await;
    gateway.ledger.pause();
    let held = hold_calls(&gateway, &gateway.pki.token(Token::default()), 40).await;
    let released = tokio::spawn(release_all(held));
    eventually("calls wait for a lease", || gateway.ledger.is_asked()).await;
    stop(&gateway);
    gateway.ledger.resume();
    for (_, message) in released.await.unwrap() {
        assert_eq!(message["result"]["_meta"]["mcp-fleet.dev/denial"]["reason"], "fleet_stopped", "{message}");
    }
    assert_eq!(gateway.shim.calls().len(), 0);
    assert_eq!(gateway.ledger.spent().await, Spent::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_a_connection_is_refused_and_a_running_one_ends() {
    let gateway = TestGateway::new().await;
    gateway.shim.set_behaviour(Behaviour::Work(DONE));
    let mut client = gateway.client().await;
    let running = tokio::spawn(async move { client.call("echo", json!({})).await });
    eventually("the call runs", || gateway.shim.calls().len() == 1).await;

    let handshakes = gateway.shim.hold_handshakes().await;
    let mut client = gateway.client().await;
    let waiting = tokio::spawn(async move { client.call("echo", json!({})).await });
    eventually("a call waits for a connection", || gateway.shim.knocking() == 1).await;
    stop(&gateway);
    drop(handshakes);
    assert_eq!(waiting.await.unwrap().denial().0, "fleet_stopped");
    assert_eq!(gateway.shim.calls().len(), 1);

    gateway.shim.finish_work();
    assert_eq!(running.await.unwrap().json()["result"]["content"][0]["text"], "done");
}
