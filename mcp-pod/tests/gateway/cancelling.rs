//! How a call ends before its time: up to 2025-11-25 by a notification, from 2026-07-28 on by hanging up.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::support::{Act, World, eventually, modern};

#[tokio::test]
async fn hanging_up_cancels_a_modern_call() {
    let world = World::new().await;
    world.shim.act(Act::Hang);
    let mut client = world.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let _ = tokio::time::timeout(Duration::from_millis(300), client.start(Method::POST, "/files/mcp", &headers, body))
        .await;
    assert_eq!(world.shim.seen().len(), 1);
    client.vanish();
    eventually("the shim hears of it", || world.shim.abandoned() == 1).await;
    let line = world.line(1).await;
    assert_eq!((line["decision"].as_str(), line["reason"].as_str()), (Some("failed"), Some("cancelled")));
    assert_eq!(world.ledger.spent().await.calls, 1, "a cancelled call is paid in full");
    eventually("the request is over", || world.state.active() == 0).await;
}

#[tokio::test]
async fn hanging_up_does_not_cancel_a_legacy_call() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.initialize("2025-11-25").await;
    world.shim.act(Act::Slowly(vec![Bytes::from_static(b"{\"result\":{}}\n")], Duration::from_millis(600)));
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}).to_string();
    let session = client.session.clone().unwrap();
    let headers = [("mcp-session-id", session.as_str())];
    let _ = tokio::time::timeout(Duration::from_millis(200), client.start(Method::POST, "/files/mcp", &headers, call))
        .await;
    client.vanish();
    let line = world.line(2).await;
    assert_eq!((line["decision"].as_str(), line["method"].as_str()), (Some("allowed"), Some("tools/call")));
}

#[tokio::test]
async fn a_notification_cancels_a_legacy_call_of_its_own_session_only() {
    let world = World::new().await;
    world.shim.act(Act::Hang);
    let mut caller = world.client().await;
    caller.initialize("2025-11-25").await;
    let mut stranger = world.client().await;
    stranger.initialize("2025-11-25").await;
    let mut same = world.client().await;
    same.session = caller.session.clone();
    let call = json!({"jsonrpc": "2.0", "id": "c-1", "method": "tools/call", "params": {"name": "echo"}}).to_string();
    let pending = tokio::spawn(async move { caller.legacy(call).await });
    eventually("the call is in flight", || world.shim.seen().len() == 1).await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c-1","reason":"x"}}"#;
    assert_eq!(stranger.legacy(cancel).await.status, 202);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.shim.abandoned(), 0, "another session cancelled it");
    assert_eq!(same.legacy(cancel).await.status, 202);
    let answer = pending.await.unwrap();
    assert_eq!(answer.denial().0, "cancelled");
    eventually("the shim hears of it", || world.shim.abandoned() == 1).await;
}
