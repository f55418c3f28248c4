//! Starts, crashes, floods, and the end.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Shim, envelope, refused, text};

#[tokio::test]
async fn the_report_is_what_the_server_said_with_all_pages_of_tools() {
    let shim = Shim::start("").ready();
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let (status, epoch, body) = gateway.request("GET", "/v1/server", String::new()).await.unwrap();
    assert_eq!((status, epoch), (200, 1));
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(report["initialize"]["vendor"], 1);
    assert_eq!(report["tools"].as_array().unwrap().len(), 3);
    assert!(body.contains("\"x-vendor\": 1.5}"), "as written: {body}");
}

#[tokio::test]
async fn a_crash_fails_the_calls_in_flight_once_and_the_server_comes_back() {
    let shim = Shim::start("").ready();
    let log = shim.workspace().join("log");
    // Opened before, because the server is back within a few hundred milliseconds.
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let (slow, crash) = tokio::join!(shim.call("slow", json!({"seconds": 30})), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        shim.call("append", json!({"path": log, "crash": true})).await
    });
    for events in [slow, crash] {
        assert_eq!(refused(&events), ("upstream_unavailable".to_owned(), true));
    }
    assert_eq!(shim.health("/readyz").0, 503);
    let events = gateway.call(json!({}), "slow", json!({"seconds": 0})).await;
    assert_eq!(refused(&events), ("upstream_unavailable".to_owned(), false), "there is no server right now");
    assert_eq!(shim.health("/healthz").0, 200);
    shim.wait_until("ready again", |shim| shim.health("/readyz").0 == 200);
    let (_, epoch, _) = gateway.post(envelope(json!({}), "slow", json!({"seconds": 0}))).await.unwrap();
    assert_eq!(epoch, 2);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "called\n", "no call is made twice");
}

#[test]
fn servers_that_do_not_start_are_never_ready_and_say_why() {
    for (mode, why) in [
        ("exit", "ended with status 4"),
        ("ancient", "failed to use the response to initialize"),
        ("pages", "failed to read the tools"),
        ("mute", "did not start within 1 s"),
    ] {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.py");
        let shim = Shim::start_with(&["--start-timeout=1"], &["/usr/bin/python3", fixture, mode]);
        shim.wait_until(mode, |shim| shim.health("/readyz").1.contains(why));
        assert_eq!(shim.health("/readyz").0, 503);
        shim.wait_until("tried again", |shim| shim.metric("mcp_pod_shim_server_starts_total") >= 2.0);
    }
}

#[test]
fn a_sandbox_that_cannot_be_made_is_never_ready() {
    let shim = Shim::start_with(&["--private=/tmp/private"], &["/bin/cat"]);
    shim.wait_until("says so", |shim| shim.health("/readyz").1.contains("sandbox could not be set up"));
    assert!(shim.log().iter().any(|line| line.contains("/tmp/private cannot be private")), "{:?}", shim.log());
}

#[tokio::test]
async fn a_server_that_does_not_read_fills_a_bounded_queue() {
    let shim = Shim::start("").ready();
    let filler = "x".repeat(4 << 20);
    let header = json!({"timeoutMs": 1000});
    let mut connections = Vec::new();
    for _ in 0..9 {
        connections.push(shim.connect_as("gateway").await.unwrap());
    }
    let start = Instant::now();
    let mut first = shim.connect_as("gateway").await.unwrap();
    let deaf_header = header.clone();
    let deaf = tokio::spawn(async move { first.call(deaf_header, "deaf", json!({})).await });
    while shim.metric("mcp_pod_shim_calls_in_flight") < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let big = connections.iter_mut().map(|gateway| gateway.call(header.clone(), "echo", json!({"filler": filler})));
    let big = futures::future::join_all(big).await;
    assert_eq!(refused(&deaf.await.unwrap()), ("upstream_timeout".to_owned(), true));
    let mut ends: Vec<_> = big.iter().map(|events| refused(events)).collect();
    ends.sort();
    ends.dedup();
    let end = |reason: &str, forwarded| (reason.to_owned(), forwarded);
    // One was being written, some waited in the queue and never left it, the rest found it full.
    assert_eq!(
        ends,
        [end("upstream_timeout", false), end("upstream_timeout", true), end("upstream_unavailable", false)]
    );
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_flood_of_garbage_ends_in_a_new_start() {
    let shim = Shim::start("").ready();
    assert_eq!(refused(&shim.call("flood", json!({})).await), ("upstream_unavailable".to_owned(), true));
    shim.wait_until("started anew", |shim| shim.metric("mcp_pod_shim_server_starts_total") >= 2.0);
    shim.wait_until("ready", |shim| shim.health("/readyz").0 == 200);
}

#[tokio::test]
async fn a_line_without_end_takes_no_memory_and_leaves_the_shim_answering() {
    let shim = Shim::start("").ready();
    let before = shim.resident();
    let events = shim.call_with(json!({"timeoutMs": 1500}), "endless", json!({})).await;
    assert_eq!(refused(&events), ("upstream_timeout".to_owned(), true));
    assert_eq!(shim.health("/healthz").0, 200);
    assert!(shim.resident() < before + 4096, "{} KiB, then {} KiB", before, shim.resident());
}

#[tokio::test]
async fn what_the_server_logs_is_forwarded_quoted_and_bounded() {
    let shim = Shim::start("").ready();
    shim.call("log", json!({"lines": 5000})).await;
    shim.wait_until("dropped", |shim| {
        shim.metric("mcp_pod_shim_server_output_dropped_total{kind=\"stderr\"}") > 4000.0
    });
    let log = shim.log();
    let line = log.iter().find(|line| line.contains("line 7 ")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["target"], &line["fields"]["stderr"]), (&json!("server"), &json!("line 7 \u{1b}[31m")));
    assert!(log.len() < 500);
}

#[tokio::test]
async fn nothing_of_a_run_outlives_it() {
    let shim = Shim::start("").ready();
    let orphan = text(&shim.call("orphan", json!({})).await);
    let alive = || Path::new(&format!("/proc/{orphan}")).exists();
    assert!(alive(), "it left the server's process group");
    shim.call("crash", json!({})).await;
    shim.wait_until("killed and collected", |_| !alive());
}

#[tokio::test]
async fn on_sigterm_calls_in_flight_end_and_new_ones_are_refused() {
    let mut shim = Shim::start("").ready();
    let pid: i32 = text(&shim.call("pid", json!({})).await).parse().unwrap();
    let (mut busy, mut late) = (shim.connect_as("gateway").await.unwrap(), shim.connect_as("gateway").await.unwrap());
    let (done, refusal) = tokio::join!(busy.call(json!({}), "slow", json!({"seconds": 1})), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        shim.terminate();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(shim.health("/readyz").0, 503);
        late.call(json!({}), "echo", json!({})).await
    });
    assert_eq!(text(&done), "done");
    assert_eq!(refused(&refusal), ("upstream_unavailable".to_owned(), false));
    let start = Instant::now();
    assert!(shim.wait().success());
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the server has ended too");
}

#[test]
fn on_sigterm_a_server_that_is_still_starting_is_not_waited_for() {
    let mut shim = Shim::start("mute");
    shim.wait_until("starting", |shim| shim.metric("mcp_pod_shim_server_starts_total") >= 1.0);
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    shim.terminate();
    assert!(shim.wait().success());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
