//! A gateway and a real shim together, in front of the fixture server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Argument, PathRule, Rule};
use serde_json::{Value, json};

use crate::support::{TestGateway, ToolServer, modern, tool};

fn argument(name: &str, rule: Rule) -> Argument {
    Argument { name: name.to_owned(), required: true, rule }
}

/// Starts a gateway whose only server is the fixture behind a real shim.
async fn start() -> (TestGateway, ToolServer) {
    let gateway = TestGateway::new().await;
    let server = ToolServer::start(&gateway.pki, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.py"));
    let root = server.workspace.path().display().to_string();
    let address = server.address;
    let within = PathRule { within: vec![root], extensions: vec![], dotfiles: false };
    let integer = Rule::Integer { minimum: 0, maximum: 100 };
    gateway.change_policy(|policy| {
        let server = &mut policy.servers[0];
        server.addresses = vec![address];
        server.tools = vec![
            tool("tool1", Class::Read, vec![]),
            tool("echo", Class::Read, vec![argument("path", Rule::Path(within))]),
            tool("progress", Class::Read, vec![argument("steps", integer.clone())]),
            tool("slow", Class::Read, vec![argument("seconds", integer)]),
            tool("cancelled", Class::Read, vec![]),
        ];
        for principal in &mut policy.principals {
            principal.grants.retain_mut(|grant| {
                Arc::make_mut(grant).tools.clear();
                grant.scope == "files-read"
            });
        }
    });
    let mut client = gateway.client().await;
    for _ in 0..200 {
        // Before that, the list has all tools of the catalogue.
        let listed = client.modern("tools/list", json!({})).await.json()["result"]["tools"].clone();
        if listed.as_array().is_some_and(|tools| tools.len() == 3) {
            return (gateway, server);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the shim never became ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_progress_and_cancellation_work_through_a_real_shim() {
    let (gateway, process) = start().await;
    let mut client = gateway.client().await;
    let listed = client.modern("tools/list", json!({})).await.json()["result"]["tools"].clone();
    assert_eq!((listed.as_array().unwrap().len(), listed[0]["name"].as_str()), (3, Some("tool1")));

    let root = process.workspace.path();
    std::fs::write(root.join("a.txt"), "a").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
    let path = |name: &str| json!({"path": root.join(name)});
    let answer = client.call("echo", path("a.txt")).await.json();
    let received: Value = serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&received["name"], &received["arguments"]), (&json!("echo"), &path("a.txt")));
    assert_eq!(client.call("echo", path("link")).await.denial().0, "path_outside_roots");
    assert_eq!(gateway.ledger.spent().await.calls, 1, "a path that the shim refused costs nothing");

    let params = json!({"name": "progress", "arguments": {"steps": 3}, "_meta": {"progressToken": "mine"}});
    let events = client.modern("tools/call", params).await.events();
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(events[1]["params"], json!({"progressToken": "mine", "progress": 1}));

    let mut impatient = gateway.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "slow", "arguments": {"seconds": 30}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let start = impatient.start(Method::POST, "/files/mcp", &headers, body);
    assert!(tokio::time::timeout(Duration::from_millis(300), start).await.is_err());
    impatient.disconnect();
    let mut cancelled = Value::Null;
    for _ in 0..100 {
        let answer = client.call("cancelled", json!({})).await.json();
        cancelled = serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
        if cancelled != json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cancelled.as_array().unwrap().len(), 1, "the server got no cancellation");
}

/// Starts a call and closes the connection while the server works on it.
async fn call_and_hang_up(gateway: &TestGateway, arguments: Value) {
    let mut client = gateway.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "slow", "arguments": arguments}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let start = client.start(Method::POST, "/files/mcp", &headers, body);
    assert!(tokio::time::timeout(Duration::from_millis(200), start).await.is_err());
    client.disconnect();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_keeps_its_slot_until_the_server_has_ended_it() {
    let (gateway, _process) = start().await;
    gateway.change_policy(|policy| policy.principals[0].limits.max_concurrent_calls = Some(2));
    let started = Instant::now();
    for _ in 0..2 {
        call_and_hang_up(&gateway, json!({"seconds": 2})).await;
    }
    let mut client = gateway.client().await;
    let mut denied = 0;
    while started.elapsed() < Duration::from_millis(1800) {
        let answer = client.call("cancelled", json!({})).await;
        assert_eq!(answer.denial().0, "concurrency_limited", "after {:?}", started.elapsed());
        denied += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(denied > 3);
    while started.elapsed() < Duration::from_secs(4) {
        if client.call("cancelled", json!({})).await.json()["result"]["isError"] != true {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the slots are still taken after the server has answered");
}
