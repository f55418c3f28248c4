//! Servers that serve MCP over HTTP.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{PATIENCE, Shim, refused, text};

/// A shim with the Python fixture as its server, on a port of its own.
pub(crate) struct Served {
    pub(crate) shim: Shim,
    port: u16,
    /// Keeps other tests from the port. It is below those that the kernel gives to programs that ask for none.
    _reserved: UdpSocket,
}

impl Served {
    pub(crate) fn start_with(flags: &[&str], arguments: &[&str]) -> Self {
        let (port, reserved) =
            (20_000..30_000).find_map(|port| Some((port, UdpSocket::bind(("127.0.0.1", port)).ok()?))).unwrap();
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/http_server.py");
        let (http_port, port_argument) = (format!("--http-port={port}"), port.to_string());
        let flags: Vec<_> = [&*http_port].into_iter().chain(flags.iter().copied()).collect();
        let command: Vec<_> =
            ["/usr/bin/python3", "-u", fixture, &port_argument].into_iter().chain(arguments.iter().copied()).collect();
        let shim = Shim::start_with(&flags, &command);
        Self { shim, port, _reserved: reserved }
    }

    fn start(arguments: &[&str]) -> Self {
        Self::start_with(&[], arguments).ready()
    }

    pub(crate) fn ready(self) -> Self {
        Self { shim: self.shim.ready(), ..self }
    }

    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Vec<Value> {
        self.shim.call(name, arguments).await
    }

    /// Returns what the server saw so far.
    async fn seen(&self) -> Vec<Value> {
        serde_json::from_str(&text(&self.call("seen", json!({})).await)).unwrap()
    }

    /// Files of `hold`.
    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/tmp/{name}-{}", self.port))
    }
}

#[tokio::test]
async fn every_kind_of_server_is_called() {
    for arguments in [
        &["json"][..],
        &["events"],
        &["stateless"],
        &["modern"],
        &["json", "batch"],
        &["json", "pretty"],
        &["events", "pretty"],
        &["json", "late"],
    ] {
        let served = Served::start(arguments);
        let events = served.call("echo", json!({"a": [1, "\n"]})).await;
        let params: Value = serde_json::from_str(&text(&events)).unwrap();
        assert_eq!(
            (&params["name"], &params["arguments"]),
            (&json!("echo"), &json!({"a": [1, "\n"]})),
            "{arguments:?}"
        );
    }
}

#[tokio::test]
async fn a_server_with_an_event_stream_is_called() {
    for arguments in [&["sse"][..], &["sse", "relative"], &["sse", "pretty"]] {
        let served = Served::start_with(&["--http-transport=sse", "--http-path=/sse"], arguments).ready();
        let params: Value = serde_json::from_str(&text(&served.call("echo", json!({"a": 1})).await)).unwrap();
        assert_eq!(params["arguments"], json!({"a": 1}), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_server_without_sessions_is_described_like_any_other() {
    let served = Served::start(&["modern"]);
    let mut gateway = served.shim.connect_as("gateway").await.unwrap();
    let (_, _, report) = gateway.request("GET", "/v1/server", String::new()).await.unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["initialize"]["serverInfo"], json!({"name": "modern", "version": "1"}));
    assert_eq!(report["initialize"]["instructions"], "Be careful.");
    assert_eq!(report["tools"][0]["name"], "echo");
}

#[tokio::test]
async fn each_revision_gets_the_headers_that_it_asks_for() {
    let accept = "application/json, text/event-stream";
    let served = Served::start(&["json"]);
    let host = format!("127.0.0.1:{}", served.port);
    let session = "session-0";
    let later =
        json!({"mcp-session-id": session, "mcp-protocol-version": "2025-06-18", "accept": accept, "host": host});
    let seen = served.seen().await;
    assert_eq!(seen[0], json!(["initialize", {"accept": accept, "host": host}]));
    assert_eq!(seen[1], json!(["notifications/initialized", later]), "before any other request");
    assert_eq!(seen[2], json!(["tools/list", later]));
    assert_eq!(seen[3], json!(["tools/call", later]));

    let served = Served::start(&["modern"]);
    let host = format!("127.0.0.1:{}", served.port);
    let with = |method: &str, name: Option<&str>| {
        let mut headers =
            json!({"mcp-protocol-version": "2026-07-28", "mcp-method": method, "accept": accept, "host": host});
        if let Some(name) = name {
            headers["mcp-name"] = json!(name);
        }
        json!([method, headers])
    };
    let seen = served.seen().await;
    let expected = [with("server/discover", None), with("tools/list", None), with("tools/call", Some("seen"))];
    assert_eq!(seen[1..], expected, "after `initialize`, which such a server does not know");
}

#[tokio::test]
async fn a_forgotten_session_begins_again_and_the_call_is_made_once() {
    for kind in ["json", "events"] {
        let served = Served::start(&[kind, "forgets"]);
        let params = text(&served.call("echo", json!({"a": 1})).await);
        assert_eq!(serde_json::from_str::<Value>(&params).unwrap()["arguments"], json!({"a": 1}));
        let methods: Vec<_> = served.seen().await.iter().map(|entry| entry[0].clone()).collect();
        let start = ["initialize", "notifications/initialized", "tools/list", "tools/call"];
        let again = ["initialize", "notifications/initialized", "tools/call", "tools/call"];
        assert_eq!(methods, [start, again].concat(), "the first call was refused, and the last one asks for this list");
        assert!(served.shim.metric("mcp_pod_shim_server_starts_total") < 1.5);
    }
}

#[tokio::test]
async fn what_is_no_answer_fails_the_call_and_says_what_it_is() {
    let served = Served::start(&["events"]);
    for (tool, arguments, reason, detail) in [
        (
            "status",
            json!({"status": 500}),
            "upstream_invalid",
            "the server answered with HTTP status 500 Internal Server Error",
        ),
        (
            "status",
            json!({"status": 302}),
            "upstream_invalid",
            "HTTP status 302 Found, a redirect, which is not followed",
        ),
        ("status", json!({"status": 202}), "upstream_invalid", "the server ended its response without an answer"),
        ("status", json!({"status": 200}), "upstream_invalid", "the answer is neither JSON nor an event stream"),
        ("lost", json!({}), "upstream_invalid", "the server ended its response without an answer"),
        ("drop", json!({}), "upstream_unavailable", "the connection to the server was lost"),
    ] {
        let events = served.call(tool, arguments).await;
        assert_eq!(refused(&events), (reason.to_owned(), true), "{tool}");
        let text = events[0]["refused"]["detail"].as_str().unwrap();
        assert!(text.contains(detail), "{text}");
    }
    let limited = json!({"maxResponse": 1000});
    for bytes in [2_000, 200_000] {
        let events = served.shim.call_with(limited.clone(), "big", json!({"bytes": bytes})).await;
        assert_eq!(refused(&events), ("response_too_large".to_owned(), true));
    }
    assert_eq!(text(&served.shim.call_with(limited, "big", json!({"bytes": 900})).await).len(), 900);
}

#[tokio::test]
async fn progress_and_requests_of_the_server_are_in_the_stream_of_a_call() {
    let served = Served::start(&["events"]);
    let events = served.shim.call_with(json!({"progress": true}), "progress", json!({})).await;
    let steps: Vec<_> = events.iter().filter_map(|event| event["progress"]["progress"].as_u64()).collect();
    assert_eq!(steps, [0, 1, 2]);
    let replies: Value = serde_json::from_str(&text(&served.call("ask", json!({})).await)).unwrap();
    assert_eq!(replies, json!([{"jsonrpc": "2.0", "id": "q", "result": {}}]));
}

#[tokio::test]
async fn only_the_answer_to_a_call_counts_in_its_stream() {
    let served = Served::start(&["events"]);
    // Calls 3 and 4, after `initialize` and the list of tools.
    let other = served.shim.begin_hold(&served.file("began")).await;
    assert!(text(&served.call("others", json!({})).await).contains("others"));
    std::fs::write(served.file("stop"), "").unwrap();
    assert_eq!(text(&other.await.unwrap()), "held");
    for name in ["began", "stop"] {
        std::fs::remove_file(served.file(name)).unwrap();
    }
}

#[tokio::test]
async fn what_is_too_long_and_no_answer_is_left_out() {
    let served = Served::start(&["events"]);
    let events = served.shim.call_with(json!({"maxResponse": 1000}), "noise", json!({"bytes": 100_000})).await;
    assert!(text(&events).contains("noise"));
}

#[tokio::test]
async fn a_call_that_the_server_has_seen_is_never_one_that_it_has_not() {
    let served = Served::start(&["events"]);
    let events = served.call("gone", json!({})).await;
    assert_eq!(refused(&events), ("upstream_invalid".to_owned(), true), "it could not be resumed");
}

#[tokio::test]
async fn many_calls_at_once_of_a_server_that_accepts_few() {
    // Python's server has a backlog of five connections.
    let served = Served::start(&["json"]);
    let calls = (0..32).map(|n| served.call("echo", json!({"n": n})));
    for (n, events) in futures::future::join_all(calls).await.into_iter().enumerate() {
        let params: Value = serde_json::from_str(&text(&events)).unwrap();
        assert_eq!(params["arguments"]["n"], n);
    }
    assert!(served.shim.metric("mcp_pod_shim_server_starts_total") < 1.5, "the server was restarted");
}

#[tokio::test]
async fn a_stream_that_ends_too_early_is_resumed() {
    let served = Served::start(&["events"]);
    let params: Value = serde_json::from_str(&text(&served.call("cut", json!({"a": 1})).await)).unwrap();
    assert_eq!(params["arguments"], json!({"a": 1}));
    assert!(served.seen().await.contains(&json!(["GET", "/mcp", "session-0", "cut"])));
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cancelled_and_its_connection_closed() {
    for kind in ["events", "modern"] {
        let served = Served::start(&[kind]);
        let events = served.shim.call_with(json!({"timeoutMs": 300}), "hold", json!({})).await;
        assert_eq!(refused(&events), ("upstream_timeout".to_owned(), true));
        let start = Instant::now();
        while text(&served.call("ended", json!({})).await) == "[]" {
            assert!(start.elapsed() < PATIENCE, "the connection is open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let cancelled: Value = serde_json::from_str(&text(&served.call("cancelled", json!({})).await)).unwrap();
        let notified = cancelled.as_array().unwrap().len();
        assert_eq!(notified, usize::from(kind == "events"), "{kind}: {cancelled}");
        let _ = std::fs::remove_file(served.file("began"));
    }
}

#[test]
fn tools_that_change_are_listed_again_over_http() {
    for (arguments, last) in [(["json", "changes"], "later2"), (["modern", "changes"], "later")] {
        let served = Served::start(&arguments);
        served.shim.wait_until("the tools have changed", |shim| {
            shim.log().iter().any(|line| line.contains("has other tools"))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            loop {
                assert!(start.elapsed() < PATIENCE, "{last} was not listed");
                let mut gateway = served.shim.connect_as("gateway").await.unwrap();
                let (_, _, report) = gateway.request("GET", "/v1/server", String::new()).await.unwrap();
                if report.contains(&format!("\"{last}\"")) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

#[test]
fn a_server_that_is_not_what_it_should_be_says_why() {
    for (flags, arguments, why) in [
        (
            &["--start-timeout=1"][..],
            &["json", "never"][..],
            "did not start within 1 s: it does not listen on its port",
        ),
        (
            &["--http-path=/elsewhere"],
            &["json"],
            "failed to use the response to initialize: the server answered with HTTP status 404",
        ),
        (&["--http-path=/elsewhere"], &["json", "redirect"], "status 307 Temporary Redirect, a redirect"),
        (&[], &["json", "html"], "the answer is neither JSON nor an event stream"),
        (&["--http-transport=sse"], &["json"], "it answered the request for its event stream with HTTP status 405"),
        (
            &["--http-transport=sse", "--http-path=/sse"],
            &["sse", "elsewhere"],
            "its event stream does not begin with the path for messages, on the same server",
        ),
    ] {
        let served = Served::start_with(flags, arguments);
        served.shim.wait_until(why, |shim| shim.health("/readyz").1.contains(why));
    }
}

#[test]
fn a_program_that_has_the_port_already_is_not_taken_for_the_server() {
    let reserved = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = reserved.local_addr().unwrap().port().to_string();
    let shim = Shim::start_with(&[&format!("--http-port={port}")], &["/bin/sleep", "1000"]);
    shim.wait_until("it says so", |shim| shim.health("/readyz").1.contains("another program listens on port"));
}

#[tokio::test]
async fn a_server_that_does_not_listen_any_more_is_started_again() {
    let served = Served::start(&["json"]);
    served.call("stop_listening", json!({})).await;
    let restarted =
        |shim: &Shim| shim.metric("mcp_pod_shim_server_starts_total") >= 2.0 && shim.health("/readyz").0 == 200;
    let events = served.call("echo", json!({})).await;
    assert_eq!(refused(&events), ("upstream_unavailable".to_owned(), false), "it did not see the call");
    served.shim.until("it was started again", restarted).await;

    let served = Served::start_with(&["--http-transport=sse", "--http-path=/sse"], &["sse"]).ready();
    served.call("end", json!({})).await;
    served.shim.until("it was started again", restarted).await;
}

#[tokio::test]
async fn what_it_prints_is_in_the_log_and_is_no_message() {
    let served = Served::start(&["json"]);
    let line = served.shim.log().into_iter().find(|line| line.contains("listening soon")).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["fields"]["stdout"], "listening soon");
}
