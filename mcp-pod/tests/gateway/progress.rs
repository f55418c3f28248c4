//! Progress events, for clients that ask for them.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::support::{Behaviour, TestGateway, eventually, modern};

const LINES: [&str; 3] = [
    "{\"progress\":{\"progress\":1,\"total\":2,\"message\":\"half\",\"progressToken\":\"forged\"}}\n",
    "{\"progress\":{\"nonsense\":true}}\n",
    "{\"result\":{\"content\":[]}}\n",
];

fn slow() -> Behaviour {
    Behaviour::Slow(LINES.iter().map(|line| Bytes::from(*line)).collect(), Duration::from_millis(30))
}

#[tokio::test]
async fn progress_is_sent_as_events_before_the_result() {
    let gateway = TestGateway::new().await;
    gateway.shim.answer(&LINES.concat());
    let mut client = gateway.client().await;
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": "mine"}});
    let answer = client.modern("tools/call", params).await;
    assert!(gateway.shim.calls()[0].header.progress);
    assert_eq!(answer.headers["x-accel-buffering"], "no");
    assert_eq!(
        answer.events(),
        [
            json!({"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": "mine", "progress": 1, "total": 2, "message": "half"}}),
            json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete", "content": []}}),
        ]
    );
    assert_eq!(
        client.call("echo", json!({})).await.headers["content-type"],
        "application/json",
        "events without a progress token"
    );
    assert!(!gateway.shim.calls()[1].header.progress);
    assert_eq!(gateway.audit_line(2).await["decision"], "allowed");
    assert_eq!(gateway.shim.connections(), 1, "the connection was not reused");
}

#[tokio::test]
async fn a_call_that_makes_no_progress_is_answered_with_json() {
    let gateway = TestGateway::new().await;
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": 7}});
    let answer = gateway.client().await.modern("tools/call", params).await;
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_client_that_accepts_no_events_gets_none() {
    let gateway = TestGateway::new().await;
    gateway.shim.set_behaviour(slow());
    let (body, headers) = modern("tools/call", json!({"name": "echo", "_meta": {"progressToken": 7}}));
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.push(("accept", "application/json"));
    let answer = gateway.client().await.send(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(answer.json()["result"]["resultType"], "complete");
}

#[tokio::test]
async fn disconnecting_during_events_cancels_only_a_modern_call() {
    let gateway = TestGateway::new().await;
    gateway.shim.set_behaviour(Behaviour::Begin(LINES[0].into(), LINES[2].into()));
    let mut client = gateway.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "_meta": {"progressToken": 7}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let response = client.start(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    drop(response);
    client.disconnect();
    assert_eq!(gateway.audit_line(1).await["reason"], "cancelled");

    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"progressToken":7}}}"#;
    let session = client.session.clone().unwrap();
    let response = client.start(Method::POST, "/files/mcp", &[("mcp-session-id", &session)], call).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    drop(response);
    client.disconnect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    gateway.shim.finish_work();
    assert_eq!(gateway.audit_line(3).await["decision"], "allowed");
    eventually("both calls end", || gateway.state.active() == 0).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_events_does_not_hold_up_the_call() {
    let gateway = TestGateway::with(|policy| policy.servers[0].limits.max_concurrent_calls = 1).await;
    let long = format!("{{\"progress\":{{\"progress\":1,\"message\":\"{}\"}}}}\n", "x".repeat(16_000));
    let mut pieces: Vec<_> = vec![Bytes::from(long); 60];
    pieces.push(Bytes::from(LINES[2]));
    gateway.shim.set_behaviour(Behaviour::Slow(pieces, Duration::from_millis(5)));
    let mut client = gateway.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "_meta": {"progressToken": 7}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let unread = client.start(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(gateway.audit_line(1).await["decision"], "allowed", "the call is settled although nobody reads");
    gateway.shim.answer(LINES[2]);
    assert_eq!(gateway.client().await.call("echo", json!({})).await.json()["result"]["resultType"], "complete");
    drop(unread);
}

#[tokio::test]
async fn a_call_that_only_makes_progress_times_out() {
    let gateway = TestGateway::with(|policy| policy.servers[0].limits.timeout = Duration::from_secs(4)).await;
    gateway.shim.set_behaviour(Behaviour::Slow(vec![Bytes::from(LINES[0]); 1000], Duration::from_millis(20)));
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": "mine"}});
    let events = gateway.client().await.modern("tools/call", params).await.events();
    let last = &events.last().unwrap()["result"];
    assert_eq!(last["_meta"]["mcp-fleet.dev/denial"]["reason"], "upstream_timeout", "{last}");
}
