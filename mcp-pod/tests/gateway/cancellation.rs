//! Cancellation: by a notification up to 2025-11-25, by closing the connection from 2026-07-28 on.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::support::{Behaviour, TestGateway, eventually, modern};

#[tokio::test]
async fn disconnecting_cancels_a_modern_call() {
    let gateway = TestGateway::new().await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    let mut client = gateway.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let _ = tokio::time::timeout(Duration::from_millis(300), client.start(Method::POST, "/files/mcp", &headers, body))
        .await;
    assert_eq!(gateway.shim.calls().len(), 1);
    client.disconnect();
    eventually("the shim notices", || gateway.shim.abandoned() == 1).await;
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
    gateway
        .shim
        .set_behaviour(Behaviour::Slow(vec![Bytes::from_static(b"{\"result\":{}}\n")], Duration::from_millis(600)));
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}).to_string();
    let session = client.session.clone().unwrap();
    let headers = [("mcp-session-id", session.as_str())];
    let _ = tokio::time::timeout(Duration::from_millis(200), client.start(Method::POST, "/files/mcp", &headers, call))
        .await;
    client.disconnect();
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
    assert_eq!(gateway.shim.abandoned(), 0, "another session cancelled the call");
    assert_eq!(same.legacy(cancel).await.status, 202);
    let answer = pending.await.unwrap();
    assert_eq!(answer.denial().0, "cancelled");
    eventually("the shim notices", || gateway.shim.abandoned() == 1).await;
}
