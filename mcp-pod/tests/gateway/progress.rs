//! Progress: events where they were asked for, and only then.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::support::{Act, World, eventually, modern};

const LINES: [&str; 3] = [
    "{\"progress\":{\"progress\":1,\"total\":2,\"message\":\"half\",\"progressToken\":\"forged\"}}\n",
    "{\"progress\":{\"nonsense\":true}}\n",
    "{\"result\":{\"content\":[]}}\n",
];

fn slowly() -> Act {
    Act::Slowly(LINES.iter().map(|line| Bytes::from(*line)).collect(), Duration::from_millis(30))
}

#[tokio::test]
async fn progress_comes_as_events_before_the_result() {
    let world = World::new().await;
    world.shim.act(slowly());
    let mut client = world.client().await;
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": "mine"}});
    let answer = client.modern("tools/call", params).await;
    assert!(world.shim.seen()[0].header.progress);
    assert_eq!(answer.headers["x-accel-buffering"], "no");
    assert_eq!(
        answer.events(),
        [
            json!({"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": "mine", "progress": 1, "total": 2, "message": "half"}}),
            json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete", "content": []}}),
        ]
    );
    assert_eq!(client.call("echo", json!({})).await.headers["content-type"], "application/json", "nobody asked");
    assert!(!world.shim.seen()[1].header.progress);
    assert_eq!(world.line(2).await["decision"], "allowed");
    assert_eq!(world.shim.connections(), 1, "the connection was not kept");
}

#[tokio::test]
async fn without_progress_the_answer_is_json_though_it_was_asked_for() {
    let world = World::new().await;
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": 7}});
    let answer = world.client().await.modern("tools/call", params).await;
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_client_that_takes_no_events_gets_none() {
    let world = World::new().await;
    world.shim.act(slowly());
    let (body, headers) = modern("tools/call", json!({"name": "echo", "_meta": {"progressToken": 7}}));
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.push(("accept", "application/json"));
    let answer = world.client().await.send(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(answer.json()["result"]["resultType"], "complete");
}

#[tokio::test]
async fn hanging_up_in_the_middle_of_events_cancels_in_one_era_and_not_in_the_other() {
    let world = World::new().await;
    let mut pieces: Vec<_> = vec![Bytes::from(LINES[0])];
    pieces.extend((0..20).map(|_| Bytes::from(LINES[0])));
    pieces.push(Bytes::from(LINES[2]));
    world.shim.act(Act::Slowly(pieces, Duration::from_millis(30)));
    let mut client = world.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "_meta": {"progressToken": 7}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let response = client.start(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    drop(response);
    client.vanish();
    assert_eq!(world.line(1).await["reason"], "cancelled");

    let mut client = world.client().await;
    client.initialize("2025-11-25").await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"progressToken":7}}}"#;
    let session = client.session.clone().unwrap();
    let response = client.start(Method::POST, "/files/mcp", &[("mcp-session-id", &session)], call).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    drop(response);
    client.vanish();
    assert_eq!(world.line(3).await["decision"], "allowed");
    eventually("all is over", || world.state.active() == 0).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_events_does_not_keep_the_call() {
    let world = World::with(|policy| {
        policy.servers[0].limits.timeout = Duration::from_secs(30);
        policy.servers[0].limits.max_concurrent_calls = 1;
    })
    .await;
    let long = format!("{{\"progress\":{{\"progress\":1,\"message\":\"{}\"}}}}\n", "x".repeat(16_000));
    let mut pieces: Vec<_> = vec![Bytes::from(long); 60];
    pieces.push(Bytes::from(LINES[2]));
    world.shim.act(Act::Slowly(pieces, Duration::from_millis(5)));
    let mut client = world.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "_meta": {"progressToken": 7}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let unread = client.start(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(world.line(1).await["decision"], "allowed", "settled although nobody reads");
    world.shim.answer(LINES[2]);
    assert_eq!(world.client().await.call("echo", json!({})).await.json()["result"]["resultType"], "complete");
    drop(unread);
}

#[tokio::test]
async fn a_server_that_only_sends_progress_is_given_up_after_its_timeout() {
    let world = World::with(|policy| policy.servers[0].limits.timeout = Duration::from_millis(300)).await;
    world.shim.act(Act::Slowly(vec![Bytes::from(LINES[0]); 1000], Duration::from_millis(20)));
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": "mine"}});
    let events = world.client().await.modern("tools/call", params).await.events();
    let last = &events.last().unwrap()["result"];
    assert_eq!(last["_meta"]["mcp-fleet.dev/denial"]["reason"], "upstream_timeout", "{last}");
}
