//! Evidence: a call that may change something leaves its audit line before its server can see it.

use std::sync::Arc;

use mcp_fleet_audit::{Problem, Verifier};
use mcp_fleet_policy::model::GrantedTool;
use serde_json::{Value, json};

use crate::support::{
    AuditLog, Behaviour, BlockedSink, Options, ProcessGateway, TestGateway, Token, eventually, until,
};

#[tokio::test]
async fn a_destructive_call_is_on_record_when_the_gateway_is_killed_during_it() {
    let mut gateway = ProcessGateway::start(&Options::default(), |policy| {
        Arc::make_mut(&mut policy.principals[0].grants[1])
            .tools
            .push(GrantedTool { name: "wipe".into(), arguments: None });
    })
    .await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    let mut client = gateway.client(Token::default()).await;
    tokio::spawn(async move { client.call("wipe", json!({})).await });
    eventually("the shim has the call", || gateway.shim.calls().len() == 1).await;
    gateway.kill();
    let call = gateway.shim.calls()[0].header.call.clone();
    eventually("the call is on record", || gateway.audit.json().iter().any(|line| line["call"] == *call)).await;
    let line = gateway.audit.json().pop().unwrap();
    assert_eq!(
        (line["decision"].as_str(), line["tool"].as_str(), line["class"].as_str(), line["principal"].as_str()),
        (Some("admitted"), Some("wipe"), Some("Destructive"), Some("acme/coder"))
    );
    assert!(line["arguments"].as_str().unwrap().starts_with("blake3-keyed:"));
    assert_eq!((line.get("cost"), line.get("reason"), line.get("result")), (None, None, None));
}

#[tokio::test]
async fn a_call_that_changes_something_has_two_lines_and_counts_once() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.call("write", json!({"path": "/workspace/a"})).await;
    client.call("read", json!({"path": "/workspace/a"})).await;
    let lines = gateway.audit_lines(3).await;
    let field = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<Value>>();
    assert_eq!(field("decision"), ["admitted", "allowed", "allowed"]);
    assert_eq!(field("tool"), ["write", "write", "read"]);
    assert_eq!((&lines[0]["call"], &lines[0]["arguments"]), (&lines[1]["call"], &lines[1]["arguments"]));
    let total: f64 = gateway
        .metrics()
        .lines()
        .filter(|line| line.starts_with("mcp_pod_calls_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert!((total - 2.0).abs() < f64::EPSILON, "{total} calls are counted");
}

#[tokio::test]
async fn a_call_that_changes_something_is_not_forwarded_before_its_line_is_written() {
    let sink = BlockedSink::default();
    let gateway = TestGateway::with_audit_sink(sink.clone(), AuditLog::default()).await;
    gateway.change_policy(|_| {});
    let mut client = gateway.client().await;
    let write = json!({"path": "/workspace/a"});
    let denied = client.call("write", write.clone()).await;
    assert_eq!(denied.denial().0, "audit_unavailable");
    assert!(gateway.shim.calls().is_empty(), "a call was forwarded before its line was written");
    assert_eq!(gateway.ledger.spent().await.calls, 0, "a call that was not forwarded was charged");
    // A call that changes nothing does not wait for its line.
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    sink.open();
    let done = async || client.call("write", write.clone()).await.json()["result"]["content"][0]["text"] == "done";
    until("a call is admitted", done).await;
}

#[tokio::test]
async fn the_lines_of_a_gateway_are_a_chain() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    for number in 0..5 {
        client.call("read", json!({"path": format!("/workspace/{number}")})).await;
        client.call("missing", json!({})).await;
    }
    gateway.audit_lines(10).await;
    let text = gateway.audit_text();
    let verify = |lines: &[&str]| {
        let mut verifier = Verifier::new();
        verifier.read_log(0, lines.join("\n").as_bytes()).unwrap();
        verifier.finish(&[], false)
    };
    let mut lines: Vec<&str> = text.lines().collect();
    let report = verify(&lines);
    assert_eq!((report.problems, report.chains[0].last), (vec![], 10));
    lines.remove(4);
    assert!(matches!(&verify(&lines).problems[..], [Problem::Removed { from: 5, to: 5, .. }]));
}
