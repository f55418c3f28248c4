//! Two gateways that share the principals of a tenant: each forwards the requests of those whose home the other one is.

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use mcp_fleet_policy::model::TenantPolicy;
use serde_json::{Value, json};

use crate::support::{
    Behaviour, Client, Options, Pair, ProcessGateway, Token, eventually, home_of_coder, modern, refusal,
};

const DONE: Bytes = Bytes::from_static(b"{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n");
const PROGRESS: Bytes = Bytes::from_static(b"{\"progress\":{\"progress\":1}}\n");

fn unlimited(policy: &mut TenantPolicy) {
    policy.principals[0].limits.calls_per_minute = None;
    policy.principals[0].limits.max_concurrent_calls = None;
}

/// Returns the text that a call returned.
fn text(message: &Value) -> &str {
    message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{message}"))
}

/// Returns the next chunk of a body as text.
async fn chunk(response: &mut Response<Incoming>) -> String {
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

/// Starts a call with a progress token. Returns the head of its answer.
async fn start_with_progress(client: &mut Client) -> Response<Incoming> {
    let params = json!({"name": "echo", "arguments": {}, "_meta": {"progressToken": "mine"}});
    let (body, headers) = modern("tools/call", params);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.start(Method::POST, "/files/mcp", &headers, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_both_eras_reach_the_home_through_either_gateway() {
    let pair = Pair::start(unlimited).await;
    let (mut at_home, mut at_edge) = pair.clients().await;
    let forwarded = pair.forwarded("answered").await;

    assert_eq!(text(&at_edge.call("echo", json!({})).await.json()), "done");
    assert_eq!(text(&at_home.call("echo", json!({})).await.json()), "done");
    let tools = at_edge.modern("tools/list", json!({})).await;
    assert_eq!(tools.headers["content-type"], "application/json");
    assert!(tools.headers.contains_key("content-length"), "{:?}", tools.headers);
    assert_eq!(tools.json(), at_home.modern("tools/list", json!({})).await.json());
    // A session goes on wherever its next request arrives.
    at_edge.initialize("2025-11-25").await;
    at_home.session = at_edge.session.clone();
    assert_eq!(text(&at_home.legacy_call("echo", json!({})).await.json()), "done");
    assert_eq!(text(&at_edge.legacy_call("echo", json!({})).await.json()), "done");
    at_home.initialize("2025-06-18").await;
    at_edge.session = at_home.session.clone();
    assert_eq!(text(&at_edge.legacy_call("echo", json!({})).await.json()), "done");

    assert_eq!(pair.home.shim.calls().len(), 5);
    assert_eq!(pair.forwarded("answered").await, forwarded + 5);
    eventually("the home has audited all", || pair.home.audit.count("\"echo\"") == 5).await;
    assert_eq!(pair.edge.audit.count("\"echo\""), 0, "only the home audits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_are_counted_over_both_gateways() {
    let pair = Pair::start(|policy| {
        policy.principals[0].limits.calls_per_minute = None;
        policy.principals[0].limits.max_concurrent_calls = Some(2);
    })
    .await;
    pair.home.shim.set_behaviour(Behaviour::Work(DONE));
    let (mut at_home, mut at_edge) = pair.clients().await;
    let running = [pair.home.client(Token::default()).await, pair.edge.client(Token::default()).await]
        .map(|mut client| tokio::spawn(async move { client.call("echo", json!({})).await }));
    eventually("both calls run", || pair.home.shim.calls().len() == 2).await;
    for client in [&mut at_home, &mut at_edge] {
        assert_eq!(refusal(&client.call("echo", json!({})).await), "concurrency_limited");
    }
    pair.home.shim.finish_work();
    for call in running {
        assert_eq!(text(&call.await.unwrap().json()), "done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_exact_over_both_gateways() {
    let pair = Pair::start(|policy| policy.principals[0].limits.calls_per_minute = Some(1)).await;
    let (mut at_home, mut at_edge) = pair.clients().await;
    // Each rate begins with one call.
    assert_eq!(text(&at_edge.call("echo", json!({})).await.json()), "done");
    assert_eq!(refusal(&at_home.call("echo", json!({})).await), "rate_limited");
    assert_eq!(refusal(&at_edge.call("echo", json!({})).await), "rate_limited");
    assert_eq!(pair.home.shim.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_passed_on_as_they_come() {
    let pair = Pair::start(unlimited).await;
    pair.home.shim.set_behaviour(Behaviour::Begin(PROGRESS, DONE));
    let (_, mut at_edge) = pair.clients().await;
    let mut response = start_with_progress(&mut at_edge).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    // The server works on the call until it is told to end.
    assert!(chunk(&mut response).await.contains("notifications/progress"));
    pair.home.shim.finish_work();
    let rest = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8(rest.to_vec()).unwrap().contains("done"));
    // A stream that has ended leaves its connection to the next request.
    pair.home.shim.set_behaviour(Behaviour::Answer(DONE));
    assert_eq!(text(&at_edge.call("echo", json!({})).await.json()), "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_cancels_its_call_at_the_home() {
    let pair = Pair::start(unlimited).await;
    pair.home.shim.set_behaviour(Behaviour::Hang);
    let (_, at_edge) = pair.clients().await;
    let runs = || pair.home.shim.calls().len() == 1;
    at_edge.call_and_hang_up("echo", json!({}), "the call runs", runs).await;
    eventually("the call is cancelled", || pair.home.shim.cancelled() == 1).await;
    pair.has_forwarded("aborted", 1).await;
    // The same in the middle of a stream.
    pair.home.shim.set_behaviour(Behaviour::Begin(PROGRESS, DONE));
    let (_, mut at_edge) = pair.clients().await;
    let mut response = start_with_progress(&mut at_edge).await;
    chunk(&mut response).await;
    drop(response);
    at_edge.disconnect();
    eventually("the call is cancelled", || pair.home.shim.cancelled() == 2).await;
    pair.has_forwarded("aborted", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_arrives_whole_and_one_that_is_too_long_not_at_all() {
    let pair = Pair::start(unlimited).await;
    let (mut at_home, mut at_edge) = pair.clients().await;
    let long = "a".repeat(99_000);
    assert_eq!(text(&at_edge.call("echo", json!({"text": long})).await.json()), "done");
    assert_eq!(pair.home.shim.calls()[0].params["arguments"]["text"], long);
    let too_long = json!({"text": "a".repeat(300 * 1024)});
    let answers = [at_home.call("echo", too_long.clone()).await, at_edge.call("echo", too_long).await];
    for answer in answers {
        assert_eq!((answer.status.as_u16(), refusal(&answer)), (413, json!("request_too_large")));
    }
    assert_eq!(text(&at_edge.call("echo", json!({})).await.json()), "done");
    assert_eq!(pair.home.shim.calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_home_is_lost_is_not_made_twice() {
    let mut pair = Pair::start(unlimited).await;
    pair.home.shim.set_behaviour(Behaviour::Hang);
    let (_, mut at_edge) = pair.clients().await;
    let running = tokio::spawn(async move { (at_edge.call("echo", json!({})).await, at_edge) });
    eventually("the call runs", || pair.home.shim.calls().len() == 1).await;
    pair.home.kill();
    let (answer, mut at_edge) = running.await.unwrap();
    assert_eq!((answer.status.as_u16(), refusal(&answer)), (502, json!("home_lost")));
    assert_eq!(pair.forwarded("lost").await, 1);
    eventually("the edge audits what the home cannot", || Pair::reasons(&pair.edge) == ["home_lost"]).await;
    // The home may still be running as far as the edge knows.
    let answer = at_edge.call("echo", json!({})).await;
    assert_eq!(refusal(&answer), "home_undecided");
    assert!(pair.forwarded("unreachable").await >= 1);
    assert_eq!(pair.home.shim.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_home_is_lost_does_not_look_complete() {
    let mut pair = Pair::start(unlimited).await;
    pair.home.shim.set_behaviour(Behaviour::Begin(PROGRESS, DONE));
    let (_, mut at_edge) = pair.clients().await;
    let mut response = start_with_progress(&mut at_edge).await;
    chunk(&mut response).await;
    pair.home.kill();
    assert!(response.into_body().collect().await.is_err(), "the stream ended as if it were complete");
    pair.has_forwarded("lost", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_stream_is_resumed_through_the_other_gateway() {
    let mut pair = Pair::start(unlimited).await;
    pair.home.shim.set_behaviour(Behaviour::Begin(PROGRESS, DONE));
    let (_, mut at_edge) = pair.clients().await;
    at_edge.initialize("2025-11-25").await;
    let session = at_edge.session.clone().unwrap();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"progressToken":7}}}"#;
    let mut response = at_edge.start(Method::POST, "/files/mcp", &[("mcp-session-id", &session)], call).await;
    let first = chunk(&mut response).await;
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(response);
    at_edge.disconnect();
    pair.home.shim.finish_work();
    let headers = [("mcp-session-id", &*session), ("last-event-id", &*id), ("accept", "text/event-stream")];
    let (mut at_home, mut at_edge) = pair.clients().await;
    for client in [&mut at_edge, &mut at_home] {
        let events = client.send(Method::GET, "/files/mcp", &headers, "").await.events();
        assert_eq!(text(events.last().unwrap()), "done");
    }
    assert_eq!(pair.home.shim.calls().len(), 1);
    // Without the home there is nothing to resume, but there may be again.
    pair.home.kill();
    let answer = at_edge.send(Method::GET, "/files/mcp", &headers, "").await;
    assert_eq!((answer.status.as_u16(), refusal(&answer)), (503, json!("home_undecided")));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_without_an_address_is_refused_as_before() {
    let options = Options { places: 2, ..Options::default() };
    let first = ProcessGateway::start(&options, unlimited).await;
    first.operator.hide_peers();
    let second = first.beside(&options, "pod-2").await;
    let edge = if home_of_coder(&["pod-1", "pod-2"]) == "pod-1" { &second } else { &first };
    let mut client = edge.client(Token::default()).await;
    // The first gateway may be the home of everybody until the second one is ready.
    let mut calls = 0;
    let answer = loop {
        let answer = client.call("echo", json!({})).await;
        if answer.json()["result"]["isError"] == true {
            break answer;
        }
        calls += 1;
    };
    assert_eq!(refusal(&answer), "home_undecided");
    assert_eq!(refusal(&client.call("echo", json!({})).await), "home_undecided");
    assert!(client.modern("tools/list", json!({})).await.json()["result"]["tools"].is_array());
    assert_eq!(first.shim.calls().len(), calls);
}
