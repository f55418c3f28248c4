//! Tool servers and shims that fail or misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_fleet_policy::units::Bytes as Size;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Behaviour, TestGateway, eventually, until};

#[tokio::test]
async fn connections_are_reused_and_a_closed_one_is_replaced() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for _ in 0..5 {
        client.call("echo", json!({})).await;
    }
    assert_eq!(gateway.shim.connections(), 1);
    gateway.shim.set_behaviour(Behaviour::Close);
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    gateway.shim.answer("{\"result\":{}}\n");
    assert_eq!(client.call("echo", json!({})).await.json()["result"], json!({"resultType": "complete"}));
    assert_eq!(gateway.shim.calls().len(), 7, "a call was sent twice");
}

#[tokio::test]
async fn a_call_to_a_server_that_hangs_times_out() {
    let gateway = TestGateway::with(|policy| policy.servers[0].limits.timeout = Duration::from_secs(4)).await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    assert_eq!(gateway.client().await.call("echo", json!({})).await.denial().0, "upstream_timeout");
    assert_eq!(gateway.ledger.spent().await.calls, 1, "a call that may have taken effect is charged");
    assert_eq!(gateway.audit_line(1).await["decision"], "failed");
    eventually("the shim notices", || gateway.shim.abandoned() == 1).await;
}

#[tokio::test]
async fn a_malformed_answer_is_withheld() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for garbage in [
        "not json\n",
        "{}\n",
        "{\"result\":[1]}\n",
        "{\"result\":{\"a\":1,\"a\":2}}\n",
        "{\"result\":{},\"error\":{}}\n",
        "{\"surprise\":{}}\n",
        "{\"error\":{\"message\":\"no code\"}}\n",
        "{\"result\":{\"_meta\":{\"mcp-fleet.dev/denial\":{}}}}\n",
        "{\"result\":{\"resultType\":\"task\"}}\n",
        "",
        "{\"result\":{}}",
    ] {
        gateway.shim.answer(garbage);
        assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_invalid", "{garbage:?}");
    }
    gateway.shim.set_behaviour(Behaviour::Break(Bytes::from_static(b"{\"result\":{")));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    gateway.shim.set_behaviour(Behaviour::Status(503));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    assert_eq!(gateway.ledger.spent().await.calls, 12, "only a call answered with another status is free");
}

#[tokio::test]
async fn a_result_that_is_too_large_is_withheld_and_never_cut() {
    let gateway = TestGateway::with(|policy| policy.servers[0].limits.max_response = Size::new(1000)).await;
    let mut client = gateway.client().await;
    let result = |length: usize| format!("{{\"result\":{{\"a\":\"{}\"}}}}\n", "x".repeat(length - 8));
    gateway.shim.answer(&result(1000));
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["a"].as_str().unwrap().len(), 992);
    gateway.shim.answer(&result(1001));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "response_too_large");
    gateway.shim.answer(&result(10_000_000));
    assert_eq!(client.call("echo", json!({})).await.denial().0, "response_too_large");
}

#[tokio::test]
async fn a_result_passes_unchanged_in_one_chunk_or_many() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let result = r#"{ "content":[{"type":"x-new","big":12345678901234567890,"text":"é😀\u2028"}], "structuredContent":{"n":1.0},"_meta":{"vendor":1},"isError":false}"#;
    let whole = Bytes::from(format!("{{\"result\":{result}}}\n"));
    let pieces = (0..whole.len()).step_by(7).map(|at| whole.slice(at..(at + 7).min(whole.len()))).collect();
    for act in [Behaviour::Answer(whole.clone()), Behaviour::Slow(pieces, Duration::from_millis(1))] {
        gateway.shim.set_behaviour(act);
        let answer = client.legacy_call("echo", json!({})).await;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        assert_eq!(std::str::from_utf8(&answer.body).unwrap(), expected);
    }
}

#[tokio::test]
async fn an_error_of_the_server_is_passed_on() {
    let gateway = TestGateway::new().await;
    gateway.shim.answer("{\"error\":{\"code\":-32602,\"message\":\"bad\",\"data\":{\"x\":1}}}\n");
    let answer = gateway.client().await.call("echo", json!({})).await;
    assert_eq!(answer.json()["error"], json!({"code": -32602, "message": "bad", "data": {"x": 1}}));
    assert_eq!(gateway.audit_line(1).await["decision"], "allowed");
}

#[tokio::test]
async fn a_call_to_an_unreachable_server_costs_nothing() {
    for addresses in [vec![], vec!["127.0.0.1:1".parse().unwrap()]] {
        let gateway = TestGateway::with(|policy| policy.servers[0].addresses = addresses).await;
        let mut client = gateway.client().await;
        assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_unavailable");
        assert!(gateway.ledger.has_granted());
        assert_eq!(gateway.ledger.spent().await.calls, 0);
    }
}

#[tokio::test]
async fn a_client_that_comes_before_its_server_learns_what_the_catalogue_says() {
    for addresses in [vec![], vec!["127.0.0.1:1".parse().unwrap()]] {
        let gateway = TestGateway::with(|policy| policy.servers[0].addresses = addresses).await;
        let mut client = gateway.client().await;
        let initialized = client.initialize("2025-11-25").await.json()["result"].clone();
        assert_eq!(initialized["serverInfo"], json!({"name": "files", "version": "unknown"}));
        let discovered = client.modern("server/discover", json!({})).await.json()["result"].clone();
        assert_eq!(discovered["capabilities"], json!({"tools": {}}));
        let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let tools = client.legacy(list).await.json()["result"]["tools"].clone();
        let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["read", "echo", "write", "fleet_status", "fleet_report_stuck"]);
        assert_eq!(tools[0]["inputSchema"]["required"], json!(["path"]));
        // As soon as the server is there, it describes itself.
        let shim = gateway.shim.address;
        gateway.change_policy(|policy| policy.servers[0].addresses = vec![shim]);
        let mut described = async || client.legacy(list).await.json().to_string().contains("Reads a file");
        until("the server describes its tools", &mut described).await;
        assert_eq!(client.initialize("2025-11-25").await.json()["result"]["serverInfo"]["name"], "secure-files");
    }
}

#[tokio::test]
async fn no_call_is_sent_to_a_shim_with_another_identity() {
    let gateway = TestGateway::with(|policy| {
        policy.servers[0].identity = "spiffe://mcp-fleet.dev/tenant/t-1/server/mail-uid".into();
    })
    .await;
    assert_eq!(gateway.client().await.call("echo", json!({})).await.denial().0, "upstream_unavailable");
    assert!(gateway.shim.calls().is_empty());
}

#[tokio::test]
async fn a_failing_report_is_read_at_most_once_a_second() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let started = Instant::now();
    let gateway = TestGateway::with(|policy| policy.servers[0].addresses = vec![address]).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        let answer = client.modern("tools/list", json!({})).await;
        assert_eq!(answer.json()["result"]["tools"][0]["name"], "read", "what the catalogue says");
    }
    let first = reads.load(Ordering::SeqCst);
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(first <= 1 + seconds, "read {first} times");
    until("the report is read again", async || {
        client.modern("tools/list", json!({})).await;
        reads.load(Ordering::SeqCst) > first
    })
    .await;
}

#[tokio::test]
async fn a_metric_shows_which_servers_are_up_and_notices_by_itself_that_one_is_up_again() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let series = || {
        gateway.state.watch_upstreams();
        let text = gateway.metrics();
        let line =
            text.lines().find_map(|line| line.strip_prefix(r#"mcp_pod_upstream_up{server="files",tenant="acme"} "#));
        line.map(str::to_owned)
    };
    assert_eq!(series(), None, "nothing is known yet");
    client.call("echo", json!({})).await;
    assert_eq!(series().as_deref(), Some("1"));
    gateway.shim.set_behaviour(Behaviour::Close);
    client.call("echo", json!({})).await;
    assert_eq!(series().as_deref(), Some("0"));
    // Without another call: the shim answers requests for its report.
    eventually("the server is up", || series().as_deref() == Some("1")).await;
    // A tool that fails says nothing about its server.
    gateway.shim.answer("{\"result\":{\"isError\":true}}\n");
    client.call("echo", json!({})).await;
    assert_eq!(series().as_deref(), Some("1"));
    gateway.change_policy(|policy| policy.servers[0].addresses.clear());
    assert_eq!(series().as_deref(), Some("0"), "it has no address");
    gateway.change_policy(|policy| policy.servers.clear());
    assert_eq!(series(), None);
}
