//! Cancellation: by a notification up to 2025-11-25, by closing the connection from 2026-07-28 on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use crate::support::{Behaviour, Client, TestGateway, eventually, until};

const DONE: Bytes = Bytes::from_static(b"{\"result\":{}}\n");

/// Starts a call of 2026-07-28 and closes the connection once the server works on it.
async fn call_and_hang_up(gateway: &TestGateway) {
    let calls = gateway.shim.calls().len();
    let in_flight = || gateway.shim.calls().len() == calls + 1;
    gateway.client().await.call_and_hang_up("echo", json!({}), "the call is in flight", in_flight).await;
}

/// Starts a call of 2025-11-25 and cancels it with a notification once the server works on it.
async fn call_and_cancel(gateway: &TestGateway) {
    let calls = gateway.shim.calls().len();
    let (mut caller, mut other) = (gateway.client().await, gateway.client().await);
    caller.initialize("2025-11-25").await;
    other.session = caller.session.clone();
    let call = json!({"jsonrpc": "2.0", "id": "c-1", "method": "tools/call", "params": {"name": "echo"}}).to_string();
    let pending = tokio::spawn(async move { caller.legacy(call).await });
    eventually("the call is in flight", || gateway.shim.calls().len() == calls + 1).await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c-1"}}"#;
    assert_eq!(other.legacy(cancel).await.status, 202);
    assert_eq!(pending.await.unwrap().denial().0, "cancelled", "the caller waits for the server");
}

/// Returns whether a call is admitted, or the reason why not.
async fn try_call(client: &mut Client) -> Result<(), String> {
    let answer = client.call("echo", json!({})).await;
    if answer.json()["result"]["isError"] == true { Err(answer.denial().0) } else { Ok(()) }
}

/// Calls until a call is admitted.
async fn eventually_admitted(client: &mut Client) {
    until("a call is admitted", async || try_call(client).await.is_ok()).await;
}

#[tokio::test]
async fn disconnecting_cancels_a_modern_call() {
    let gateway = TestGateway::new().await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    call_and_hang_up(&gateway).await;
    eventually("the shim is notified", || gateway.shim.cancelled() == 1).await;
    let line = gateway.audit_line(1).await;
    assert_eq!((line["decision"].as_str(), line["reason"].as_str()), (Some("failed"), Some("cancelled")));
    assert_eq!(gateway.ledger.spent().await.calls, 1, "a cancelled call is charged in full");
    eventually("the request ends", || gateway.state.active() == 0).await;
}

#[tokio::test]
async fn disconnecting_does_not_cancel_a_legacy_call() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    gateway.shim.set_behaviour(Behaviour::Work(DONE));
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}).to_string();
    let session = client.session.clone().unwrap();
    let headers = [("mcp-session-id", session.as_str())];
    client.send_and_hang_up(&headers, call, "in flight", || gateway.shim.calls().len() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    gateway.shim.finish_work();
    let line = gateway.audit_line(2).await;
    assert_eq!((line["decision"].as_str(), line["method"].as_str()), (Some("allowed"), Some("tools/call")));
}

#[tokio::test]
async fn a_notification_cancels_only_a_legacy_call_of_its_session() {
    let gateway = TestGateway::new().await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    let mut caller = gateway.client().await;
    caller.initialize("2025-11-25").await;
    let mut other = gateway.client().await;
    other.initialize("2025-11-25").await;
    let mut same = gateway.client().await;
    same.session = caller.session.clone();
    let call = json!({"jsonrpc": "2.0", "id": "c-1", "method": "tools/call", "params": {"name": "echo"}}).to_string();
    let pending = tokio::spawn(async move { caller.legacy(call).await });
    eventually("the call is in flight", || gateway.shim.calls().len() == 1).await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c-1","reason":"x"}}"#;
    assert_eq!(other.legacy(cancel).await.status, 202);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(gateway.shim.cancelled(), 0, "another session cancelled the call");
    assert_eq!(same.legacy(cancel).await.status, 202);
    let answer = pending.await.unwrap();
    assert_eq!(answer.denial().0, "cancelled");
    eventually("the shim is notified", || gateway.shim.cancelled() == 1).await;
}

#[tokio::test]
async fn a_cancelled_call_keeps_its_slots_until_the_server_has_answered() {
    for reason in ["concurrency_limited", "tenant_concurrency_limited", "server_concurrency_limited"] {
        let gateway = TestGateway::with(|policy| match reason {
            "concurrency_limited" => policy.principals[0].limits.max_concurrent_calls = Some(2),
            "tenant_concurrency_limited" => policy.traffic.max_concurrent_calls = Some(2),
            _ => policy.servers[0].limits.max_concurrent_calls = 2,
        })
        .await;
        gateway.shim.set_behaviour(Behaviour::Work(DONE));
        call_and_hang_up(&gateway).await;
        call_and_cancel(&gateway).await;
        eventually("the shim is notified", || gateway.shim.cancelled() == 2).await;
        eventually("both requests end", || gateway.state.active() == 0).await;
        assert_eq!(gateway.ledger.spent().await.calls, 2, "a cancelled call is charged in full at once");
        gateway.shim.set_behaviour(Behaviour::Answer(DONE));
        let mut client = gateway.client().await;
        assert_eq!(try_call(&mut client).await, Err(reason.to_owned()));
        assert_eq!(gateway.shim.calls().len(), 2);
        gateway.shim.finish_work();
        for _ in 0..3 {
            eventually_admitted(&mut client).await;
        }
        assert_eq!(gateway.shim.abandoned(), 0, "the connection was closed");
    }
}

#[tokio::test]
async fn a_cancelled_call_keeps_its_slot_at_most_until_its_timeout() {
    let gateway = TestGateway::with(|policy| {
        policy.principals[0].limits.max_concurrent_calls = Some(1);
        policy.servers[0].limits.timeout = Duration::from_secs(4);
    })
    .await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    let started = Instant::now();
    call_and_hang_up(&gateway).await;
    gateway.shim.set_behaviour(Behaviour::Answer(DONE));
    let mut client = gateway.client().await;
    eventually_admitted(&mut client).await;
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
    eventually("the connection is closed", || gateway.shim.abandoned() == 1).await;
}

#[tokio::test]
async fn a_cancellation_that_overtakes_its_call_is_sent_again() {
    let gateway = TestGateway::new().await;
    gateway.shim.refuse_cancellations(&[409, 409, 409]);
    gateway.shim.set_behaviour(Behaviour::Work(DONE));
    call_and_hang_up(&gateway).await;
    eventually("the shim is notified", || gateway.shim.cancelled() == 1).await;
    assert_eq!(gateway.shim.abandoned(), 0);
}

#[tokio::test]
async fn a_shim_without_cancellations_is_notified_by_closing_the_connection() {
    let gateway = TestGateway::with(|policy| {
        policy.principals[0].limits.max_concurrent_calls = Some(1);
        policy.servers[0].limits.timeout = Duration::from_secs(4);
    })
    .await;
    gateway.shim.refuse_cancellations(&[404]);
    gateway.shim.set_behaviour(Behaviour::Hang);
    call_and_hang_up(&gateway).await;
    eventually("the shim notices", || gateway.shim.abandoned() == 1).await;
    gateway.shim.set_behaviour(Behaviour::Answer(DONE));
    let mut client = gateway.client().await;
    assert_eq!(try_call(&mut client).await, Err("concurrency_limited".to_owned()), "the server may still work");
    eventually_admitted(&mut client).await;
}

#[tokio::test]
async fn a_call_with_an_unusable_answer_keeps_its_slot_until_the_shim_has_ended_it() {
    let gateway = TestGateway::with(|policy| policy.principals[0].limits.max_concurrent_calls = Some(1)).await;
    gateway.shim.set_behaviour(Behaviour::Begin(Bytes::from_static(b"garbage\n"), DONE));
    let mut client = gateway.client().await;
    assert_eq!(try_call(&mut client).await, Err("upstream_invalid".to_owned()));
    gateway.shim.set_behaviour(Behaviour::Answer(DONE));
    assert_eq!(try_call(&mut client).await, Err("concurrency_limited".to_owned()));
    gateway.shim.finish_work();
    eventually_admitted(&mut client).await;
}

#[tokio::test]
async fn a_cancelled_call_ends_when_the_shim_closes_the_connection() {
    let gateway = TestGateway::with(|policy| policy.principals[0].limits.max_concurrent_calls = Some(1)).await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    call_and_hang_up(&gateway).await;
    eventually("the shim is notified", || gateway.shim.cancelled() == 1).await;
    gateway.shim.set_behaviour(Behaviour::Answer(DONE));
    gateway.shim.close_connections();
    eventually_admitted(&mut gateway.client().await).await;
}
