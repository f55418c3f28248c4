//! Single calls: what is passed on, what is refused, and how bad responses are handled.

use std::time::Duration;

use mcp_pod::envelope::MAX_PROGRESS_BYTES;
use serde_json::{Value, json};

use super::support::{Shim, envelope, refused, text};

fn refusal(reason: &str, forwarded: bool) -> (String, bool) {
    (reason.to_owned(), forwarded)
}

#[tokio::test]
async fn params_and_answers_are_passed_on_unchanged() {
    let shim = Shim::start("").ready();
    let seen: Value = serde_json::from_str(&text(&shim.call("echo", json!({"a": [1, "ü"]})).await)).unwrap();
    assert_eq!(seen, json!({"name": "echo", "arguments": {"a": [1, "ü"]}}));

    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let line = r#"{"jsonrpc":"2.0","id":ID,"result":{"n": 1.50,  "vendor":{"b":1,"a":2}}}"#;
    let (_, _, body) = gateway.post(envelope(json!({}), "raw", json!({"line": line}))).await.unwrap();
    assert_eq!(body, "{\"result\":{\"n\": 1.50,  \"vendor\":{\"b\":1,\"a\":2}}}\n");
    let line = r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"no"}}"#;
    let (_, _, body) = gateway.post(envelope(json!({}), "raw", json!({"line": line}))).await.unwrap();
    assert_eq!(body, "{\"error\":{\"code\":-32602,\"message\":\"no\"}}\n");
    assert!(shim.metric("mcp_pod_shim_calls_total{outcome=\"answered\"}") >= 3.0);
}

#[tokio::test]
async fn concurrent_calls_get_their_own_answers() {
    let shim = Shim::start("").ready();
    let calls = (0..40).map(|n| {
        let shim = &shim;
        async move { (n, text(&shim.call("echo", json!({ "n": n })).await)) }
    });
    for (n, seen) in futures::future::join_all(calls).await {
        assert_eq!(serde_json::from_str::<Value>(&seen).unwrap()["arguments"]["n"], n);
    }
}

#[tokio::test]
async fn only_the_gateway_can_connect() {
    let shim = Shim::start("").ready();
    // In TLS 1.3 a client notices with its first read that it was refused.
    let outcome = match shim.connect_as("stranger").await {
        Ok(mut stranger) => stranger.post(envelope(json!({}), "echo", json!({}))).await.map_err(|_| ()).map(|_| ()),
        Err(_) => Err(()),
    };
    assert_eq!(outcome, Err(()));
    assert!(tokio::net::TcpStream::connect(shim.calls).await.is_ok(), "it no longer listens");
}

#[tokio::test]
async fn an_invalid_envelope_is_a_400_and_is_not_forwarded() {
    let shim = Shim::start("").ready();
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let good = envelope(json!({}), "append", json!({"path": shim.workspace().join("log")}));
    for bad in [
        String::new(),
        "{}\n{}\n".to_owned(),
        good.replacen("\"version\":1", "\"version\":2", 1),
        good.replacen("\"version\":1", "\"version\":1,\"surprise\":1", 1),
        format!("{good}{}\n", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#),
        good.replacen("{\"arguments", "\r{\"arguments", 1),
    ] {
        assert_eq!(gateway.post(bad.clone()).await.unwrap().0, 400, "{bad}");
    }
    assert!(!shim.workspace().join("log").exists());
    assert_eq!(gateway.request("GET", "/v1/call", String::new()).await.unwrap().0, 405);
    assert_eq!(gateway.request("GET", "/", String::new()).await.unwrap().0, 404);
}

#[tokio::test]
async fn a_path_through_a_link_is_refused_before_the_server_sees_it() {
    let shim = Shim::start("").ready();
    let workspace = shim.workspace();
    std::os::unix::fs::symlink("/etc", workspace.join("link")).unwrap();
    let call = |path: &str| {
        let value = workspace.join(path);
        let header = json!({"paths": [{"value": value, "within": [workspace]}]});
        shim.call_with(header, "append", json!({"path": value}))
    };
    assert_eq!(text(&call("log").await), "appended");
    assert_eq!(refused(&call("link/passwd").await), refusal("path_outside_roots", false));
    assert_eq!(refused(&call("../outside").await), refusal("path_outside_roots", false));
    assert_eq!(std::fs::read_to_string(workspace.join("log")).unwrap(), "called\n");
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cancelled() {
    let shim = Shim::start("").ready();
    let call = shim.begin_work(json!({"timeoutMs": 4000}), "work").await;
    assert_eq!(refused(&call.await.unwrap()), refusal("upstream_timeout", true));
    let cancelled: Value = serde_json::from_str(&text(&shim.call("cancelled", json!({})).await)).unwrap();
    assert_eq!(cancelled[0]["reason"], "timed out");
    shim.end_work("work");
    shim.wait_until("the late answer is dropped", |shim| {
        shim.metric("mcp_pod_shim_server_output_dropped_total{kind=\"stray\"}") >= 1.0
    });
    assert_eq!(text(&shim.call("slow", json!({"seconds": 0})).await), "done");
}

#[tokio::test]
async fn a_dropped_connection_cancels_the_call() {
    let shim = Shim::start("").ready();
    let gateway = shim.connect_as("gateway").await.unwrap();
    let (mut sender, driver) = (gateway.sender, gateway.driver);
    let request = http::Request::post("/v1/call").header("host", "shim");
    let body = envelope(json!({}), "hold", json!({"path": shim.workspace().join("work")}));
    let pending = tokio::spawn(sender.send_request(request.body(body.into()).unwrap()));
    shim.until("the server works", |shim| shim.workspace().join("work.began").exists()).await;
    driver.abort();
    let _ = tokio::join!(pending, driver);
    shim.wait_until("cancelled", |shim| shim.metric("mcp_pod_shim_calls_total{outcome=\"abandoned\"}") >= 1.0);
    let cancelled: Value = serde_json::from_str(&text(&shim.call("cancelled", json!({})).await)).unwrap();
    assert_eq!(cancelled[0]["reason"], "the caller went away");
}

#[tokio::test]
async fn a_cancelled_call_ends_when_the_server_answers() {
    let shim = Shim::start("").ready();
    let mut other = shim.connect_as("gateway").await.unwrap();
    for progress in [false, true] {
        let name = format!("work-{progress}");
        let call = shim.begin_work(json!({"call": "01JCANCEL", "progress": progress}), &name).await;
        let cancelled = other.request("POST", "/v1/cancel", "01JCANCEL".to_owned()).await.unwrap();
        assert_eq!((cancelled.0, cancelled.2.as_str()), (204, ""));
        let again = other.request("POST", "/v1/cancel", "01JCANCEL".to_owned()).await.unwrap();
        assert_eq!(again.0, 204, "a call can be cancelled twice");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!call.is_finished(), "the call ended before the server answered");
        shim.end_work(&name);
        assert_eq!(text(&call.await.unwrap()), "done");
        assert_eq!(other.request("POST", "/v1/cancel", "01JCANCEL".to_owned()).await.unwrap().0, 409);
    }
    let cancelled: Value = serde_json::from_str(&text(&shim.call("cancelled", json!({})).await)).unwrap();
    let reasons: Vec<_> = cancelled.as_array().unwrap().iter().map(|params| &params["reason"]).collect();
    assert_eq!(reasons, ["the caller went away", "the caller went away"]);
    assert_eq!(other.request("GET", "/v1/cancel", String::new()).await.unwrap().0, 405);
}

#[tokio::test]
async fn a_cancelled_call_that_is_never_answered_times_out() {
    let shim = Shim::start("").ready();
    let call = shim.begin_work(json!({"call": "01JCANCEL", "timeoutMs": 4000}), "work").await;
    let mut other = shim.connect_as("gateway").await.unwrap();
    assert_eq!(other.request("POST", "/v1/cancel", "01JCANCEL".to_owned()).await.unwrap().0, 204);
    assert_eq!(refused(&call.await.unwrap()), refusal("upstream_timeout", true));
    let cancelled: Value = serde_json::from_str(&text(&shim.call("cancelled", json!({})).await)).unwrap();
    assert_eq!(cancelled.as_array().unwrap().len(), 1, "the server was notified twice");
}

#[tokio::test]
async fn an_answer_above_the_limit_is_withheld_and_not_buffered() {
    let shim = Shim::start("").ready();
    let limit = json!({"maxResponse": 1000});
    assert_eq!(
        refused(&shim.call_with(limit.clone(), "big", json!({"bytes": 2000})).await),
        refusal("response_too_large", true)
    );
    let before = shim.resident();
    for tool in ["big", "big_last"] {
        let events = shim.call_with(limit.clone(), tool, json!({"bytes": 100_000_000})).await;
        assert_eq!(refused(&events), refusal("response_too_large", true), "{tool}");
    }
    assert!(shim.resident() < before + 4096, "{} KiB, then {} KiB", before, shim.resident());
    assert_eq!(text(&shim.call_with(limit, "big", json!({"bytes": 900})).await).len(), 900);
    assert_eq!(text(&shim.call("big", json!({"bytes": 900_000})).await).len(), 900_000);
}

#[tokio::test]
async fn invalid_answers_fail_the_call_and_other_lines_are_ignored() {
    let shim = Shim::start("").ready();
    let raw = |line: &str| shim.call_with(json!({"timeoutMs": 4000}), "raw", json!({"line": line}));
    for line in [
        r#"{"jsonrpc":"2.0","id":ID}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":[]}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"n":NaN}}"#,
        r#"{"jsonrpc":"1.0","id":ID,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{}"#,
    ] {
        assert_eq!(refused(&raw(line).await), refusal("upstream_invalid", true), "{line}");
    }
    let ignored = [
        r#"{"jsonrpc":"2.0","id":"0ID","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"id":ID,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":ID,"method":"roots/list","params":NaN}"#,
    ];
    for (events, line) in futures::future::join_all(ignored.map(raw)).await.iter().zip(ignored) {
        assert_eq!(refused(events), refusal("upstream_timeout", true), "{line}");
    }
    assert_eq!(text(&shim.call("garbage", json!({})).await), "still here");
    assert_eq!(text(&shim.call("twice", json!({})).await), "first");
    assert_eq!(text(&shim.call("slow", json!({"seconds": 0})).await), "done", "the second answer was dropped");
    assert!(shim.metric("mcp_pod_shim_server_output_dropped_total{kind=\"garbage\"}") >= 4.0);
    assert!(shim.metric("mcp_pod_shim_server_starts_total") < 1.5, "the server was restarted");
}

#[tokio::test]
async fn progress_is_passed_on_only_if_requested() {
    let shim = Shim::start("").ready();
    let events = shim.call_with(json!({"progress": true}), "progress", json!({"steps": 3})).await;
    let expected = |step| json!({"progress": {"progress": step, "vendor": [1]}});
    assert_eq!(events[..3], [expected(0), expected(1), expected(2)]);
    assert_eq!((events.len(), text(&events)), (4, "true".to_owned()));
    let events = shim.call("progress", json!({"steps": 3})).await;
    assert_eq!((events.len(), text(&events)), (1, "false".to_owned()));
    let events = shim.call_with(json!({"progress": true, "timeoutMs": 4000}), "slow", json!({"seconds": 60})).await;
    assert_eq!(refused(&events), refusal("upstream_timeout", true));
}

#[tokio::test]
async fn a_call_with_too_much_progress_loses_the_progress_and_not_its_answer() {
    let shim = Shim::start("").ready();
    let arguments = json!({"steps": 60, "pause": 0.005, "more": {"filler": "x".repeat(32 << 10)}});
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let (_, _, body) = gateway.post(envelope(json!({"progress": true}), "progress", arguments)).await.unwrap();
    let lines: Vec<_> = body.split_inclusive('\n').collect();
    let [progress @ .., answer] = &*lines else { panic!("no event") };
    let bytes: usize = progress.iter().map(|line| line.len()).sum();
    assert!((1 << 19..=MAX_PROGRESS_BYTES).contains(&bytes), "{bytes} bytes in {} updates", progress.len());
    assert_eq!(text(&[serde_json::from_str(answer).unwrap()]), "true");
    assert!(shim.metric("mcp_pod_shim_server_output_dropped_total{kind=\"progress\"}") >= 1.0);
}

#[tokio::test]
async fn the_only_request_of_the_server_that_succeeds_is_ping() {
    let shim = Shim::start("").ready();
    let replies: Value = serde_json::from_str(&text(&shim.call("ask", json!({})).await)).unwrap();
    assert_eq!((&replies["one"]["code"], &replies["two"]), (&json!(-32601), &json!({})));
}

#[tokio::test]
async fn a_server_without_sessions_gets_what_its_revision_asks_for() {
    let shim = Shim::start("modern").ready();
    for progress in [false, true] {
        let events = shim.call_with(json!({"progress": progress}), "echo", json!({"a": 1})).await;
        let params: Value = serde_json::from_str(&text(&events)).unwrap();
        assert_eq!((&params["name"], &params["arguments"]), (&json!("echo"), &json!({"a": 1})));
        let meta = &params["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
        assert_eq!(meta["progressToken"].is_u64(), progress);
    }
}
