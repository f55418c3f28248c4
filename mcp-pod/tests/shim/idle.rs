//! Servers that are stopped while nobody calls them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::http::Served;
use super::support::{Shim, envelope, refused, text};

const IDLE_STOP: &str = "--idle-stop=1";

/// Returns the command of the fixture, which does not start while there is the first file, fails to start while there is the second
/// one, and does not end while there is the third one.
fn command(folder: &Path) -> Vec<String> {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.py");
    let [start, fails, end] =
        ["hold-start", "fails", "hold-end"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let script = format!("test -e {fails} && exit 4; exec /usr/bin/python3 {fixture} {start} {end}");
    ["/bin/sh", "-c", &script].map(str::to_owned).into()
}

/// A shim that stops its server soon, with a folder for the files above.
struct Idle {
    shim: Shim,
    folder: tempfile::TempDir,
}

impl Idle {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let command = command(folder.path());
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let flags: Vec<&str> = [IDLE_STOP].iter().chain(flags).copied().collect();
        let shim = Shim::start_with(&flags, &command).ready();
        Self { shim, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until the server is stopped.
    async fn stopped(&self) {
        stopped(&self.shim).await;
    }
}

async fn stopped(shim: &Shim) {
    shim.until("stopped", |shim| shim.metric("mcp_pod_shim_server_idle") > 0.5).await;
}

fn wakes(shim: &Shim) -> f64 {
    shim.metric("mcp_pod_shim_server_wakes_total")
}

fn starts(shim: &Shim) -> f64 {
    shim.metric("mcp_pod_shim_server_starts_total")
}

#[tokio::test]
async fn a_server_that_nobody_calls_is_stopped_and_the_next_call_starts_it() {
    let Idle { shim, folder: _folder } = Idle::start();
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let report = gateway.request("GET", "/v1/server", String::new()).await.unwrap().2;
    for round in 0..2 {
        // One run, because a call is in flight.
        let work = shim.begin_work(json!({}), &format!("work-{round}")).await;
        let (pid, orphan) = (text(&shim.call("pid", json!({})).await), text(&shim.call("orphan", json!({})).await));
        shim.end_work(&format!("work-{round}"));
        work.await.unwrap();
        stopped(&shim).await;
        for gone in [&pid, &orphan] {
            assert!(!Path::new(&format!("/proc/{gone}")).exists(), "a process is left");
        }
        assert_eq!(shim.health("/readyz").0, 200);
        assert!(shim.metric("mcp_pod_shim_server_ready") > 0.5);
        // What the gateway asks for a list of tools starts nothing.
        let (status, epoch, asked) = gateway.request("GET", "/v1/server", String::new()).await.unwrap();
        assert_eq!((status, &asked), (200, &report));
        assert!(shim.metric("mcp_pod_shim_server_idle") > 0.5);
        // Calls at the same time share one start.
        let wakes_before = wakes(&shim);
        let log = shim.workspace().join(format!("log-{round}"));
        let connections = (0..5).map(|_| shim.connect_as("gateway"));
        let mut connections: Vec<_> = futures::future::try_join_all(connections).await.unwrap();
        let calls =
            connections.iter_mut().map(|gateway| gateway.post(envelope(json!({}), "append", json!({"path": log}))));
        for answer in futures::future::join_all(calls).await {
            let (status, answered, body) = answer.unwrap();
            assert_eq!((status, answered), (200, epoch + 1), "{body}");
            let event: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(text(&[event]), "appended");
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "called\n".repeat(5), "a call was made twice");
        assert!((wakes(&shim) - wakes_before - 1.0).abs() < 0.1);
        assert!((starts(&shim) - 1.0).abs() < 0.1, "a wake counts as a restart");
    }
}

#[tokio::test]
async fn a_call_in_flight_keeps_the_server_running() {
    let idle = Idle::start();
    let work = idle.shim.begin_work(json!({"progress": true}), "work").await;
    // Another server would be stopped and started again meanwhile.
    let other = Idle::start();
    other.stopped().await;
    other.shim.call("pid", json!({})).await;
    other.stopped().await;
    assert!(idle.shim.metric("mcp_pod_shim_server_idle") < 0.1);
    idle.shim.end_work("work");
    assert_eq!(text(&work.await.unwrap()), "done");
    idle.stopped().await;
}

#[tokio::test]
async fn a_call_that_arrives_while_the_server_is_being_stopped_is_made_by_the_next_one() {
    let idle = Idle::start_with(&["--stop-grace=120"]);
    let (shim, hold) = (&idle.shim, idle.file("hold-end"));
    std::fs::write(&hold, "").unwrap();
    let before = text(&shim.call("pid", json!({})).await);
    let ends = |shim: &Shim| shim.log().iter().any(|line| line.contains("its input has ended"));
    shim.until("being stopped", ends).await;
    let wakes_before = wakes(shim);
    assert_eq!(shim.health("/readyz").0, 200);
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let call = tokio::spawn(async move { gateway.call(json!({}), "pid", json!({})).await });
    // A call that cannot wait any longer was not made.
    let impatient = shim.call_with(json!({"timeoutMs": 300}), "pid", json!({})).await;
    assert_eq!(refused(&impatient), ("upstream_timeout".to_owned(), false));
    assert!(Path::new(&format!("/proc/{before}")).exists());
    assert!(wakes(shim) - wakes_before < 0.1, "it was started before the one before had ended");
    std::fs::remove_file(&hold).unwrap();
    let after = text(&call.await.unwrap());
    assert!(after != before && !Path::new(&format!("/proc/{before}")).exists());
}

#[tokio::test]
async fn a_call_waits_for_the_start_no_longer_than_it_may_and_can_be_cancelled() {
    let idle = Idle::start();
    let shim = &idle.shim;
    let hold = idle.file("hold-start");
    idle.stopped().await;
    std::fs::write(&hold, "").unwrap();
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let waiting = tokio::spawn(async move { gateway.call(json!({"call": "01C"}), "pid", json!({})).await });
    let late = shim.call_with(json!({"timeoutMs": 300}), "pid", json!({})).await;
    assert_eq!(refused(&late), ("upstream_timeout".to_owned(), false));
    assert_eq!(shim.health("/readyz").0, 200);
    shim.until("started by a call", |shim| wakes(shim) > 0.5).await;
    let mut connection = shim.connect_as("gateway").await.unwrap();
    let (status, _, _) = connection.request("POST", "/v1/cancel", "01C".to_owned()).await.unwrap();
    assert_eq!(status, 204);
    assert_eq!(refused(&waiting.await.unwrap()), ("cancelled".to_owned(), false));
    // The start goes on without them, and the server is stopped again.
    std::fs::remove_file(&hold).unwrap();
    idle.stopped().await;
    assert!((wakes(shim) - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_start_that_fails_ends_the_calls_that_wait_for_it_and_says_why() {
    let idle = Idle::start();
    idle.stopped().await;
    std::fs::write(idle.file("fails"), "").unwrap();
    let events = idle.shim.call("pid", json!({})).await;
    assert_eq!(refused(&events), ("upstream_unavailable".to_owned(), false));
    let detail = events[0]["refused"]["detail"].as_str().unwrap();
    assert_eq!(detail, "the server ended with status 4");
    let (status, message) = idle.shim.health("/readyz");
    assert_eq!(status, 503, "{message}");
    // It is started again as after any failure.
    std::fs::remove_file(idle.file("fails")).unwrap();
    idle.shim.until("ready again", |shim| shim.health("/readyz").0 == 200).await;
    assert!(starts(&idle.shim) > 1.5);
}

#[tokio::test]
async fn a_start_that_takes_too_long_ends_the_calls_that_wait_before_the_process_ends() {
    let idle = Idle::start_with(&["--start-timeout=8", "--stop-grace=120"]);
    idle.stopped().await;
    std::fs::write(idle.file("hold-start"), "").unwrap();
    let events = idle.shim.call_with(json!({"timeoutMs": 100_000}), "pid", json!({})).await;
    assert_eq!(refused(&events), ("upstream_unavailable".to_owned(), false));
    assert!(events[0]["refused"]["detail"].as_str().unwrap().contains('8'), "{events:?}");
    let (status, message) = idle.shim.health("/readyz");
    assert_eq!(status, 503, "{message}");
    assert!(idle.shim.metric("mcp_pod_shim_server_ready") < 0.5);
    // So that it ends.
    std::fs::remove_file(idle.file("hold-start")).unwrap();
}

#[tokio::test]
async fn calls_that_wait_for_a_start_hold_no_more_than_calls_that_are_queued() {
    let idle = Idle::start();
    idle.stopped().await;
    std::fs::write(idle.file("hold-start"), "").unwrap();
    let large = json!({"text": "x".repeat(13 << 20)});
    let (mut gateway, arguments) = (idle.shim.connect_as("gateway").await.unwrap(), large.clone());
    let first = tokio::spawn(async move { gateway.call(json!({}), "pid", arguments).await });
    idle.shim.until("started by a call", |shim| wakes(shim) > 0.5).await;
    let second = idle.shim.call("pid", large).await;
    assert_eq!(refused(&second), ("upstream_unavailable".to_owned(), false));
    std::fs::remove_file(idle.file("hold-start")).unwrap();
    assert!(!text(&first.await.unwrap()).is_empty());
}

#[tokio::test]
async fn a_shim_whose_server_is_stopped_ends_at_once_and_refuses_calls_that_wait() {
    let mut idle = Idle::start();
    idle.stopped().await;
    idle.shim.terminate();
    assert!(idle.shim.wait().success());

    let mut idle = Idle::start();
    idle.stopped().await;
    std::fs::write(idle.file("hold-start"), "").unwrap();
    let mut gateway = idle.shim.connect_as("gateway").await.unwrap();
    let call = tokio::spawn(async move { gateway.call(json!({}), "pid", json!({})).await });
    idle.shim.until("started by a call", |shim| wakes(shim) > 0.5).await;
    idle.shim.terminate();
    assert_eq!(refused(&call.await.unwrap()), ("upstream_unavailable".to_owned(), false));
    assert!(idle.shim.wait().success());
}

#[tokio::test]
async fn servers_over_http_are_stopped_and_started_too() {
    for (flags, arguments) in [
        (&[IDLE_STOP][..], &["json"][..]),
        // With an event stream that says that the tools change.
        (&[IDLE_STOP], &["json", "changes"]),
        (&[IDLE_STOP], &["modern"]),
        (&[IDLE_STOP, "--http-transport=sse", "--http-path=/sse"], &["sse"]),
    ] {
        let served = Served::start_with(flags, arguments).ready();
        stopped(&served.shim).await;
        let params: Value = serde_json::from_str(&text(&served.call("echo", json!({"a": 1})).await)).unwrap();
        assert_eq!(params["arguments"], json!({"a": 1}), "{arguments:?}");
        stopped(&served.shim).await;
        assert!((wakes(&served.shim) - 1.0).abs() < 0.1 && (starts(&served.shim) - 1.0).abs() < 0.1);
    }
}
