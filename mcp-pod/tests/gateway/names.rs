//! Tools whose names models cannot use, and the names by which agents know them.

use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::LoopSettings;
use mcp_fleet_policy::model::{Breaker, GrantedTool, TenantPolicy};
use mcp_fleet_policy::units::Micros;
use serde_json::{Value, json};

use crate::support::{Client, TestGateway};

/// Name of the tool on its server.
const NAME: &str = "$pages.Append $text";

/// Gives `echo` the name above on its server, by which a scope grants it, and leaves `echo` as the name for agents.
fn aliased(policy: &mut TenantPolicy) {
    let tool = &mut policy.servers[0].tools[1];
    (tool.name, tool.alias) = (NAME.into(), Some("echo".into()));
    let mut grant = (*policy.principals[0].grants[0]).clone();
    grant.tools.push(GrantedTool { name: NAME.into(), arguments: None });
    grant.classes.clear();
    policy.principals[0].grants[0] = grant.into();
}

fn report() -> String {
    json!({"version": 1, "initialize": {}, "tools": [{"name": NAME, "description": "Appends."}]}).to_string()
}

/// Returns names and descriptions of the tools that are no built-in ones.
async fn listed(client: &mut Client) -> Vec<(String, String)> {
    let answer = client.modern("tools/list", json!({})).await.json();
    let tools = answer["result"]["tools"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = tools.iter().map(|tool| (text(&tool["name"]), text(&tool["description"])));
    named.filter(|(name, _)| !name.starts_with("fleet_")).collect()
}

#[tokio::test]
async fn a_tool_with_signs_and_spaces_in_its_name_is_called_in_both_eras() {
    for name in ["a.b", "a/b", "a-b_c.d/e", "$pages.append", "Create Share", "a  b $"] {
        let gateway = TestGateway::with(|policy| policy.servers[0].tools[1].name = name.into()).await;
        let mut client = gateway.client().await;
        assert_eq!(client.call(name, json!({})).await.json()["result"]["content"][0]["text"], "done", "{name}");
        client.initialize("2025-11-25").await;
        assert_eq!(client.legacy_call(name, json!({})).await.json()["result"]["content"][0]["text"], "done", "{name}");
        assert!(gateway.shim.calls().iter().all(|call| call.params["name"] == name));
        let labels = format!(r#"decision="allowed",principal="acme/coder",server="files",tenant="acme",tool="{name}""#);
        assert!((gateway.metric("mcp_pod_calls_total", &labels) - 2.0).abs() < 0.1, "{labels}");
        assert_eq!(gateway.audit_line(3).await["tool"], name);
    }
}

#[tokio::test]
async fn agents_see_and_call_a_tool_by_its_alias_and_everything_else_uses_its_name() {
    let gateway = TestGateway::with(|policy| {
        aliased(policy);
        policy.servers[0].tools[1].price = Micros::new(1000);
    })
    .await;
    gateway.shim.restart(&report());
    let mut client = gateway.client().await;
    assert_eq!(listed(&mut client).await, [("echo".to_owned(), "Appends.".to_owned())]);
    let answer = client.call("echo", json!({"text": "a"})).await;
    assert_eq!(answer.json()["result"]["content"][0]["text"], "done");
    client.initialize("2025-11-25").await;
    client.legacy_call("echo", json!({"text": null})).await;
    for call in gateway.shim.calls() {
        assert_eq!(call.params["name"], NAME);
    }
    let refused = client.call("echo", json!({"text": 1})).await;
    assert_eq!(refused.denial().0, "argument_type");
    let lines = gateway.audit_lines(5).await;
    let calls: Vec<&Value> = lines.iter().filter(|line| line["method"] == "tools/call").collect();
    assert_eq!(calls.len(), 3, "{lines:?}");
    for line in calls {
        assert_eq!((line["tool"].as_str(), line["class"].as_str()), (Some(NAME), Some("Read")), "{line}");
    }
    let labels = |decision: &str| {
        format!(r#"decision="{decision}",principal="acme/coder",server="files",tenant="acme",tool="{NAME}""#)
    };
    for (decision, count) in [("allowed", 2.0), ("denied", 1.0)] {
        assert!((gateway.metric("mcp_pod_calls_total", &labels(decision)) - count).abs() < 0.1, "{decision}");
    }
}

#[tokio::test]
async fn a_call_by_the_name_on_the_server_is_one_of_an_unknown_tool() {
    let gateway = TestGateway::with(aliased).await;
    let mut client = gateway.client().await;
    let unknown = client.call("nope", json!({})).await;
    let real = client.call(NAME, json!({})).await;
    assert_eq!(unknown.error(), (-32602, "Unknown tool: nope".to_owned()));
    assert_eq!(real.error(), (-32602, format!("Unknown tool: {NAME}")));
    assert!(gateway.shim.calls().is_empty());
    let line = gateway.audit_line(2).await;
    assert_eq!((line["reason"].as_str(), line.get("class")), (Some("tool_unknown"), None));
}

#[tokio::test]
async fn two_tools_may_exchange_their_names() {
    let gateway = TestGateway::with(|policy| {
        let tools = &mut policy.servers[0].tools;
        (tools[1].alias, tools[3].alias) = (Some("wipe".into()), Some("echo".into()));
        tools[3].class = Class::Destructive;
    })
    .await;
    let mut client = gateway.client().await;
    assert_eq!(client.call("wipe", json!({"text": "a"})).await.json()["result"]["content"][0]["text"], "done");
    assert_eq!(gateway.shim.calls().pop().unwrap().params["name"], "echo");
    // Its class is not granted.
    assert_eq!(client.call("echo", json!({})).await.error().0, -32602);
    assert_eq!(gateway.audit_line(2).await["tool"], "wipe");
}

#[tokio::test]
async fn what_agents_are_told_names_tools_as_they_know_them() {
    let gateway = TestGateway::with(|policy| {
        aliased(policy);
        policy.servers[0].breaker =
            Breaker { minimum_calls: 4, open_for: Duration::from_secs(3600), ..Breaker::DEFAULT };
        policy.servers[0].loops = LoopSettings::DEFAULT;
    })
    .await;
    let mut client = gateway.client().await;
    gateway
        .shim
        .answer("{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"permission denied\"}],\"isError\":true}}\n");
    let warned = async |client: &mut Client| {
        for _ in 0..20 {
            let answer = client.call("echo", json!({"text": "a"})).await.json();
            if !answer["result"]["_meta"].is_null() {
                return answer["result"].to_string();
            }
        }
        panic!("never warned");
    };
    let warning = warned(&mut client).await;
    assert!(warning.contains(r#"\"echo\" of server"#) && !warning.contains(NAME), "{warning}");
    // Until it is refused.
    let refused = loop {
        let answer = client.call("echo", json!({"text": "a"})).await.json();
        if answer["result"]["_meta"]["mcp-fleet.dev/denial"]["reason"] == "loop_detected" {
            break answer.to_string();
        }
    };
    assert!(refused.contains(r#"\"echo\" of server"#) && !refused.contains(NAME), "{refused}");
    gateway.shim.answer("garbage\n");
    for text in ["b", "c", "d", "e"] {
        client.call("echo", json!({"text": text})).await;
    }
    let paused = async |client: &mut Client| {
        let status = client.call("fleet_status", json!({})).await.json();
        status["result"]["structuredContent"]["paused"].clone()
    };
    let shown = paused(&mut client).await;
    assert_eq!((&shown[0]["tool"], &shown[0]["reason"]), (&json!("echo"), &json!("breaker_open")));
    // A report names the tool as the agent does, and concerns calls of it.
    let unknown = client.call("fleet_report_stuck", json!({"reason": "-", "tool": NAME})).await;
    assert_eq!(unknown.denial().0, "argument_not_allowed");
    let reported = client.call("fleet_report_stuck", json!({"reason": "-", "tool": "echo"})).await.json();
    assert_eq!(reported["result"]["structuredContent"]["tool"], "echo");
    let shown = paused(&mut client).await;
    assert!(shown.as_array().unwrap().iter().all(|one| one["tool"] == "echo"), "{shown}");
    assert!(shown.as_array().unwrap().iter().any(|one| one["reason"] == "reported_stuck"), "{shown}");
    assert_eq!(client.call("echo", json!({"text": "f"})).await.denial().0, "reported_stuck");
}
