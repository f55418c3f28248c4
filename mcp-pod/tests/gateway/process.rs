//! The gateway process: starts without an operator, reports that it is not ready, ends on SIGTERM, and is replaced.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::support::{Client, FreeAddress, Options, Pki, ProcessGateway, Token, eventually, get, until};

#[tokio::test]
async fn the_gateway_starts_without_its_operator_and_ends_on_sigterm() {
    let pki = Pki::new();
    let free = [FreeAddress::new(), FreeAddress::new(), FreeAddress::new()];
    let [listen, health, peers] = free.each_ref().map(FreeAddress::get);
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_mcp-pod"))
        .args(["gateway", "--listen", &listen.to_string(), "--metrics-listen", &health.to_string()])
        .args(["--peer-listen", &peers.to_string()])
        .args(["--operator-address", "127.0.0.1:1", "--policy-dir", "/nonexistent", "--token-file", "/nonexistent"])
        .arg("--tls-dir")
        .arg(pki.gateway_dir())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the gateway is alive", async || {
        get(health, "/healthz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    })
    .await;
    assert!(get(health, "/readyz").await.unwrap().starts_with("HTTP/1.1 503"));
    let metrics = get(health, "/metrics").await.unwrap();
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(get(health, "/else").await.unwrap().starts_with("HTTP/1.1 404"));
    assert!(tokio::net::TcpStream::connect(listen).await.is_ok());

    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let terminated = Instant::now();
    let status = loop {
        if let Some(status) = gateway.try_wait().unwrap() {
            break status;
        }
        // Calls in flight would have more time.
        assert!(terminated.elapsed() < Duration::from_secs(20), "the gateway does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_a_gateway_that_is_killed() {
    let options = Options { lease: Duration::from_secs(4), ..Options::default() };
    let mut gateway = ProcessGateway::start(&options, |_| {}).await;
    let mut client = gateway.client(Token::default()).await;
    client.initialize("2025-11-25").await;
    let session = client.session.clone();
    gateway.restart().await;
    let mut client = gateway.client(Token::default()).await;
    client.session.clone_from(&session);
    let called = client.legacy_call("echo", json!({})).await;
    assert_eq!(called.json()["result"]["content"][0]["text"], "done", "{called:?}");
    // A client that initializes with the session that it had gets another one.
    let stale = session.unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let answer = client.send(Method::POST, "/files/mcp", &[("mcp-session-id", &stale)], body.to_string()).await;
    assert_ne!(answer.headers["mcp-session-id"].to_str().unwrap(), stale);
}

/// Returns what clients of both eras learn about a server and its tools: lists first, then how it describes itself.
async fn described(client: &mut Client) -> [Vec<u8>; 4] {
    let list = client.modern("tools/list", json!({})).await;
    let legacy_list = client.legacy(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    let discovered = client.modern("server/discover", json!({})).await;
    let initialized = client.initialize("2025-11-25").await;
    [list, legacy_list, discovered, initialized].map(|answer| answer.body.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_learn_of_a_server_outlives_a_gateway_that_is_killed_while_the_server_is_down() {
    let options = Options { lease: Duration::from_secs(4), ..Options::default() };
    let mut gateway = ProcessGateway::start(&options, |_| {}).await;
    let mut client = gateway.client(Token::default()).await;
    client.initialize("2025-11-25").await;
    let session = client.session.clone();
    let before = described(&mut client).await;
    assert!(String::from_utf8_lossy(&before[0]).contains("Reads a file"), "{before:?}");
    let received = gateway.operator.received.server_reports.clone();
    eventually("the operator keeps the report", || received.lock().len() == 1).await;

    gateway.shim.set_starting(true);
    gateway.restart().await;
    let mut client = gateway.client(Token::default()).await;
    client.session = session;
    until("the kept report is used", async || client.modern("tools/list", json!({})).await.body == before[0]).await;
    assert_eq!(described(&mut client).await, before);

    // The server starts with the same report, and later with another one: only that is sent.
    gateway.shim.set_starting(false);
    assert_eq!(described(&mut client).await, before);
    gateway.shim.restart(r#"{"version":1,"initialize":{"serverInfo":{"name":"new","version":"2"}},"tools":[]}"#);
    until("the new report is read", async || described(&mut client).await != before).await;
    eventually("the operator keeps the new report", || received.lock().len() > 1).await;
    let digests: Vec<_> = received.lock().iter().map(|report| report.digest.clone()).collect();
    assert_eq!(digests.len(), 2);
    assert_ne!(digests[0], digests[1]);
}
