//! How the shim starts, restarts and stops the server.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Shim, envelope, refused, text};

/// Less than the 20 seconds that calls in flight may take, and more than a shim needs to end without any.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn the_report_contains_initialize_and_all_pages_of_tools_unchanged() {
    let shim = Shim::start("").ready();
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let (status, epoch, body) = gateway.request("GET", "/v1/server", String::new()).await.unwrap();
    assert_eq!((status, epoch), (200, 1));
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(report["initialize"]["vendor"], 1);
    assert_eq!(report["tools"].as_array().unwrap().len(), 3);
    assert!(body.contains("\"x-vendor\": 1.5}"), "not as the server wrote it: {body}");
}

#[tokio::test]
async fn a_crash_fails_the_calls_in_flight_and_the_server_is_restarted() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let hold_start = folder.path().join("hold-start");
    let shim = Shim::start(hold_start.to_str().unwrap()).ready();
    let log = shim.workspace().join("log");
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let work = shim.begin_work(json!({}), "work").await;
    std::fs::write(&hold_start, "").unwrap();
    let crash = shim.call("append", json!({"path": log, "crash": true})).await;
    for events in [work.await.unwrap(), crash] {
        assert_eq!(refused(&events), ("upstream_unavailable".to_owned(), true));
    }
    assert_eq!(shim.health("/readyz").0, 503);
    let events = gateway.call(json!({}), "slow", json!({"seconds": 0})).await;
    assert_eq!(refused(&events), ("upstream_unavailable".to_owned(), false), "there is no server at the moment");
    assert_eq!(shim.health("/healthz").0, 200);
    std::fs::remove_file(&hold_start).unwrap();
    shim.wait_until("ready again", |shim| shim.health("/readyz").0 == 200);
    let (_, epoch, _) = gateway.post(envelope(json!({}), "slow", json!({"seconds": 0}))).await.unwrap();
    assert_eq!(epoch, 2);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "called\n", "the call was made twice");
}

#[test]
fn a_server_that_does_not_start_is_never_ready_and_readyz_says_why() {
    for (mode, message) in [
        ("exit", "ended with status 4"),
        ("ancient", "failed to use the response to initialize"),
        ("pages", "failed to read the tools"),
        ("other-id", "failed to use the response to initialize: its id is 0, which is not the one of the request"),
        ("null-id", "failed to use the response to initialize: its id is null"),
        ("mute", "did not start within 1 s"),
    ] {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.py");
        let shim = Shim::start_with(&["--start-timeout=1"], &["/usr/bin/python3", fixture, mode]);
        shim.wait_until(mode, |shim| shim.health("/readyz").1.contains(message));
        assert_eq!(shim.health("/readyz").0, 503);
        shim.wait_until("tried again", |shim| shim.metric("mcp_pod_shim_server_starts_total") >= 2.0);
    }
}

#[test]
fn servers_that_are_not_exact_start() {
    for mode in ["string-ids", "float-ids", "marks", "same-cursor", "empty-cursor", "answers-notifications"] {
        let tools = if mode.ends_with("cursor") { "\"tools\":1}" } else { "\"tools\":3}" };
        let lists = |shim: &Shim| shim.log().iter().any(|line| line.contains("takes calls") && line.contains(tools));
        Shim::start(mode).wait_until(mode, lists);
    }
}

#[test]
fn tools_that_change_are_listed_again_and_not_too_often() {
    let shim = Shim::start("grows").ready();
    let listed = |shim: &Shim| shim.log().iter().filter(|line| line.contains("has other tools")).count();
    shim.wait_until("listed again", |shim| listed(shim) == 1);
    // While it was listed, a hundred notifications came.
    shim.wait_until("listed for all that came meanwhile", |shim| listed(shim) == 2);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(listed(&shim), 2);
    assert!(shim.metric("mcp_pod_shim_server_starts_total") < 1.5, "the server was restarted");
}

#[test]
fn without_a_sandbox_the_server_is_never_ready() {
    let shim = Shim::start_with(&["--private=/tmp/private"], &["/bin/cat"]);
    shim.wait_until("the sandbox fails", |shim| shim.health("/readyz").1.contains("sandbox could not be set up"));
    // The line passes through a pipe of its own, so it may come after the state.
    let says_why = |shim: &Shim| shim.log().iter().any(|line| line.contains("/tmp/private cannot be private"));
    shim.wait_until("the log says why", says_why);
}

#[tokio::test]
async fn the_queue_to_a_server_that_does_not_read_is_bounded() {
    let shim = Shim::start("").ready();
    let filler = "x".repeat(4 << 20);
    let header = json!({"timeoutMs": 8000});
    let mut connections = Vec::new();
    for _ in 0..9 {
        connections.push(shim.connect_as("gateway").await.unwrap());
    }
    let mut first = shim.connect_as("gateway").await.unwrap();
    let deaf_header = header.clone();
    let deaf = tokio::spawn(async move { first.call(deaf_header, "deaf", json!({})).await });
    while shim.metric("mcp_pod_shim_calls_in_flight") < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let big = connections.iter_mut().map(|gateway| gateway.call(header.clone(), "echo", json!({"filler": filler})));
    let big = futures::future::join_all(big).await;
    assert_eq!(refused(&deaf.await.unwrap()), ("upstream_timeout".to_owned(), true));
    let mut refusals: Vec<_> = big.iter().map(|events| refused(events)).collect();
    refusals.sort();
    refusals.dedup();
    let refusal = |reason: &str, forwarded| (reason.to_owned(), forwarded);
    // One call was being written, some stayed in the queue, and for the others the queue was full.
    assert_eq!(
        refusals,
        [refusal("upstream_timeout", false), refusal("upstream_timeout", true), refusal("upstream_unavailable", false)]
    );
}

#[tokio::test]
async fn a_server_that_floods_its_output_is_restarted() {
    let shim = Shim::start("").ready();
    assert_eq!(refused(&shim.call("flood", json!({})).await), ("upstream_unavailable".to_owned(), true));
    shim.wait_until("restarted", |shim| shim.metric("mcp_pod_shim_server_starts_total") >= 2.0);
    shim.wait_until("ready", |shim| shim.health("/readyz").0 == 200);
}

#[tokio::test]
async fn a_line_without_an_end_uses_no_memory_and_does_not_block_the_shim() {
    let shim = Shim::start("").ready();
    let before = shim.resident();
    let events = shim.call_with(json!({"timeoutMs": 4000}), "endless", json!({})).await;
    assert_eq!(refused(&events), ("upstream_timeout".to_owned(), true));
    assert_eq!(shim.health("/healthz").0, 200);
    assert!(shim.resident() < before + 4096, "{} KiB, then {} KiB", before, shim.resident());
}

#[tokio::test]
async fn standard_error_is_logged_as_a_quoted_field_at_a_limited_rate() {
    let shim = Shim::start("").ready();
    let start = Instant::now();
    shim.call("log", json!({"lines": 5000})).await;
    shim.wait_until("dropped", |shim| {
        shim.metric("mcp_pod_shim_server_output_dropped_total{kind=\"stderr\"}") > 4000.0
    });
    shim.wait_until("logged", |shim| shim.log().iter().any(|line| line.contains("line 7 ")));
    let log = shim.log();
    let line = log.iter().find(|line| line.contains("line 7 ")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["target"], &line["fields"]["stderr"]), (&json!("server"), &json!("line 7 \u{1b}[31m")));
    // A hundred lines a second.
    assert!(log.len() < 500 + 100 * usize::try_from(start.elapsed().as_secs()).unwrap(), "{} lines", log.len());
}

#[tokio::test]
async fn no_process_of_a_run_outlives_it() {
    let shim = Shim::start("").ready();
    let orphan = text(&shim.call("orphan", json!({})).await);
    let alive = || Path::new(&format!("/proc/{orphan}")).exists();
    assert!(alive(), "the process that left the server's group has ended too early");
    shim.call("crash", json!({})).await;
    shim.wait_until("killed and collected", |_| !alive());
}

#[tokio::test]
async fn on_sigterm_calls_in_flight_end_and_new_ones_are_refused() {
    let mut shim = Shim::start("").ready();
    let pid: i32 = text(&shim.call("pid", json!({})).await).parse().unwrap();
    let mut late = shim.connect_as("gateway").await.unwrap();
    let work = shim.begin_work(json!({}), "work").await;
    shim.terminate();
    shim.until("not ready", |shim| shim.health("/readyz").0 == 503).await;
    let refusal = late.call(json!({}), "echo", json!({})).await;
    assert_eq!(refused(&refusal), ("upstream_unavailable".to_owned(), false));
    shim.end_work("work");
    assert_eq!(text(&work.await.unwrap()), "done");
    let start = Instant::now();
    assert!(shim.wait().success());
    assert!(start.elapsed() < SOON);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the server is still running");
}

#[test]
fn on_sigterm_a_server_that_is_still_starting_is_stopped_at_once() {
    let mut shim = Shim::start("mute");
    shim.wait_until("starting", |shim| shim.metric("mcp_pod_shim_server_starts_total") >= 1.0);
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    shim.terminate();
    assert!(shim.wait().success());
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}
