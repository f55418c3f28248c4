//! The limit on processes and threads of the server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{PATIENCE, Shim, text};

const LIMIT: usize = 64;

fn start() -> Shim {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.py");
    Shim::start_with(&[&format!("--max-processes={LIMIT}")], &["/usr/bin/python3", fixture, ""]).ready()
}

/// Calls a tool and returns how many processes or threads it started, and the error that stopped it.
async fn started(shim: &Shim, tool: &str, arguments: Value) -> (usize, Value) {
    let answer: Value = serde_json::from_str(&text(&shim.call(tool, arguments).await)).unwrap();
    (answer[0].as_u64().unwrap().try_into().unwrap(), answer[1].clone())
}

#[tokio::test]
async fn a_server_cannot_have_more_processes_than_its_limit() {
    let shim = start();
    for _ in 0..3 {
        let (processes, error) = started(&shim, "fork", json!({"attempts": 300})).await;
        // The server itself has the main thread and that of the call. That of an earlier call may not have ended yet.
        assert!((LIMIT - 4..=LIMIT - 2).contains(&processes), "{processes}");
        assert_eq!(error, "EAGAIN");
    }
    let says_why =
        |shim: &Shim| shim.log().iter().any(|line| line.contains("as many processes and threads as it may have"));
    shim.wait_until("the log says why", says_why);
    assert!(shim.metric("mcp_pod_shim_server_starts_total") < 1.5, "the server was restarted");
}

#[tokio::test]
async fn threads_count_like_processes() {
    let shim = start();
    let (threads, error) = started(&shim, "threads", json!({"attempts": 300})).await;
    assert!((LIMIT - 4..=LIMIT - 2).contains(&threads), "{threads}");
    assert_eq!(error, "can't start new thread");
    shim.wait_until("they have ended", |shim| descendants(shim.pid()) < 10);
    assert_eq!(started(&shim, "threads", json!({"attempts": 40})).await, (40, Value::Null));
}

#[tokio::test]
async fn processes_that_have_ended_do_not_count() {
    let shim = start();
    for _ in 0..20 {
        assert_eq!(started(&shim, "fork", json!({"attempts": 40})).await, (40, Value::Null));
    }
    assert_eq!(started(&shim, "fork", json!({"attempts": 40, "keep": true})).await, (40, Value::Null));
    let (processes, error) = started(&shim, "fork", json!({"attempts": 40})).await;
    assert!(processes <= LIMIT - 40, "{processes} in addition to 40");
    assert_eq!(error, "EAGAIN");
}

#[tokio::test]
async fn a_fork_bomb_is_held_at_the_limit_and_the_shim_keeps_working() {
    let shim = start();
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let bomb =
        tokio::spawn(async move { gateway.call(json!({}), "bomb", json!({"seconds": 3, "budget": 2000})).await });
    let (mut most, start) = (0, Instant::now());
    while !bomb.is_finished() {
        most = most.max(descendants(shim.pid()));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(text(&bomb.await.unwrap()), "over");
    // On a busy machine a count can miss calls that were allowed just before, but never makes the limit twice as high.
    assert!((LIMIT / 2..2 * LIMIT).contains(&most), "{most} processes and threads");
    assert_eq!(shim.health("/healthz").0, 200);
    shim.wait_until("it has ended", |shim| descendants(shim.pid()) < 10);
    assert_eq!(started(&shim, "fork", json!({"attempts": 40})).await, (40, Value::Null));
}

#[tokio::test]
async fn a_fork_bomb_does_not_outlive_the_shim() {
    let mut shim = start();
    let mut gateway = shim.connect_as("gateway").await.unwrap();
    let call = json!({"seconds": 60, "budget": 2000});
    let _bomb = tokio::spawn(async move { gateway.call(json!({"timeoutMs": 1000}), "bomb", call).await });
    let start = Instant::now();
    while descendants(shim.pid()) < LIMIT / 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(start.elapsed() < PATIENCE, "it does not start");
    }
    let processes = descendant_pids(shim.pid());
    shim.terminate();
    assert!(shim.wait().success());
    let left: Vec<_> = table().into_iter().filter(|(pid, _)| processes.contains(pid)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
#[ignore = "a measurement: run it with --ignored, on an idle and on a busy machine"]
async fn a_signal_seldom_interrupts_a_fork() {
    let shim = Shim::start("").ready();
    let failed = text(&shim.call_with(json!({"timeoutMs": 600_000}), "pipelines", json!({"number": 1000})).await);
    println!("{failed} of 1000 pipelines failed");
    assert!(failed.parse::<u32>().unwrap() < 30, "{failed} of 1000 pipelines failed");
}

/// Returns parent and number of threads of all processes (proc_pid_stat(5)).
fn table() -> HashMap<u32, (u32, usize)> {
    let read = |pid: u32| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some((pid, (fields[1].parse().ok()?, fields[17].parse().ok()?)))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn descendant_pids(root: u32) -> Vec<u32> {
    let table = table();
    let descends = |mut pid: u32| {
        while let Some((parent, _)) = table.get(&pid) {
            if *parent == root {
                return true;
            }
            pid = *parent;
        }
        false
    };
    table.keys().copied().filter(|pid| descends(*pid)).collect()
}

/// Returns the number of threads of all descendants of a process.
fn descendants(root: u32) -> usize {
    let table = table();
    descendant_pids(root).iter().filter_map(|pid| Some(table.get(pid)?.1.max(1))).sum()
}
