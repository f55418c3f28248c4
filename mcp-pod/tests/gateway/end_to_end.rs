//! A gateway and a real shim together, in front of the fixture server.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Argument, PathRule, Rule};
use serde_json::{Value, json};

use crate::support::{TestGateway, ToolServer, tool, until};

fn argument(name: &str, rule: Rule) -> Argument {
    Argument { name: name.to_owned(), required: true, rule, shown: None }
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
            tool("echo", Class::Read, vec![argument("path", Rule::Path(within.clone()))]),
            tool("progress", Class::Read, vec![argument("steps", integer)]),
            tool("hold", Class::Read, vec![argument("path", Rule::Path(within))]),
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
    until("the shim is ready", async || {
        // Before that, the list has all tools of the catalogue.
        let listed = client.modern("tools/list", json!({})).await.json()["result"]["tools"].clone();
        listed.as_array().is_some_and(|tools| tools.len() == 3)
    })
    .await;
    (gateway, server)
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

    call_and_hang_up(&gateway, &process, "held").await;
    until("the server gets a cancellation", async || {
        let answer = client.call("cancelled", json!({})).await.json();
        let cancelled = answer["result"]["content"][0]["text"].as_str().unwrap();
        serde_json::from_str::<Vec<Value>>(cancelled).unwrap().len() == 1
    })
    .await;
}

/// Starts a call that the server works on until there is a file `name`, and closes the connection once the server works
/// on it.
async fn call_and_hang_up(gateway: &TestGateway, process: &ToolServer, name: &str) {
    let end = process.workspace.path().join(name);
    let began = end.with_extension("began");
    let client = gateway.client().await;
    client.call_and_hang_up("hold", json!({"path": end}), "the server works", || began.exists()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_keeps_its_slot_until_the_server_has_ended_it() {
    let (gateway, process) = start().await;
    gateway.change_policy(|policy| policy.principals[0].limits.max_concurrent_calls = Some(2));
    for name in ["one", "two"] {
        call_and_hang_up(&gateway, &process, name).await;
    }
    let mut client = gateway.client().await;
    for _ in 0..10 {
        assert_eq!(client.call("cancelled", json!({})).await.denial().0, "concurrency_limited");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for name in ["one", "two"] {
        std::fs::write(process.workspace.path().join(name), "").unwrap();
    }
    let admitted = async || client.call("cancelled", json!({})).await.json()["result"]["isError"] != true;
    until("the slots are free again", admitted).await;
}
