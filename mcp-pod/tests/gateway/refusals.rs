//! Calls that policy refuses, and how their callers hear of it.

use std::time::Duration;

use mcp_fleet_policy::units::Micros;
use serde_json::json;

use crate::support::{World, now};

#[tokio::test]
async fn a_tool_that_is_not_granted_answers_as_one_that_does_not_exist() {
    let world = World::new().await;
    let mut client = world.client().await;
    let hidden = client.call("wipe", json!({})).await;
    let missing = client.call("nope", json!({})).await;
    assert_eq!((hidden.status.as_u16(), hidden.error()), (200, (-32602, "Unknown tool: wipe".to_owned())));
    let alike = String::from_utf8(missing.body.to_vec()).unwrap().replace("nope", "wipe");
    assert_eq!(alike.as_bytes(), &hidden.body[..]);
    let lines = world.lines(2).await;
    assert_eq!(
        (lines[0]["reason"].as_str(), lines[1]["reason"].as_str()),
        (Some("tool_not_granted"), Some("tool_unknown"))
    );
    assert!(world.shim.seen().is_empty());
}

#[tokio::test]
async fn every_argument_outside_its_rule_is_refused_with_its_reason() {
    let world = World::new().await;
    let mut client = world.client().await;
    let path = "/workspace/a.txt";
    for (tool, arguments, reason) in [
        ("read", json!({"path": path, "tail": 1}), "argument_undeclared"),
        ("read", json!({}), "argument_missing"),
        ("read", json!({"path": 7}), "argument_type"),
        ("read", json!({"path": path, "head": "5"}), "argument_type"),
        ("read", json!({"path": path, "head": 101}), "argument_out_of_range"),
        ("read", json!({"path": "/etc/passwd"}), "path_outside_roots"),
        ("read", json!({"path": "/workspace/../etc/passwd"}), "path_outside_roots"),
        ("echo", json!({"text": "-rf"}), "argument_pattern"),
    ] {
        let (given, _) = client.call(tool, arguments.clone()).await.denial();
        assert_eq!(given, reason, "{arguments}");
    }
    assert!(world.shim.seen().is_empty());
    let line = world.line(8).await;
    assert_eq!(
        (line["decision"].as_str(), line["class"].as_str(), line["tool"].as_str()),
        (Some("denied"), Some("Read"), Some("echo"))
    );
    assert!(line["arguments"].as_str().unwrap().starts_with("blake3-keyed:"));
    assert!(!world.ledger.has_granted(), "a refused call needed money");
}

#[tokio::test]
async fn a_refusal_in_the_modern_era_is_a_complete_result() {
    let world = World::new().await;
    let mut client = world.client().await;
    assert_eq!(client.call("read", json!({})).await.json()["result"]["resultType"], "complete");
    client.initialize("2025-11-25").await;
    assert_eq!(client.legacy_call("read", json!({})).await.json()["result"].get("resultType"), None);
}

#[tokio::test]
async fn a_budget_that_is_exhausted_says_when_it_resets() {
    let world = World::with(|policy| {
        policy.budgets[0].calls = None;
        policy.servers[0].tools[1].price = Micros::new(1500);
    })
    .await;
    let mut client = world.client().await;
    let resets_at = now() + 90;
    let written = jiff::Timestamp::from_second(resets_at).unwrap().to_string();
    world.ledger.exhaust(resets_at);
    let answer = client.call("echo", json!({})).await;
    let (reason, text) = answer.denial();
    assert_eq!(reason, "budget_exhausted");
    assert!(text.contains("5 USD a day") && text.contains(&written), "{text}");
    let data = &answer.json()["result"]["_meta"]["mcp-fleet.dev/denial"];
    assert_eq!(data["resetsAt"], written);
    assert!((80_000..=90_000).contains(&data["retryAfterMs"].as_i64().unwrap()), "{data}");
    assert!(world.shim.seen().is_empty());
}

#[tokio::test]
async fn a_stale_policy_refuses_writes_first_and_then_everything() {
    for (age, write, read) in [(1, "", ""), (16, "policy_stale", ""), (61, "policy_stale", "policy_stale")] {
        let world = World::aged(Duration::from_secs(age)).await;
        let mut client = world.client().await;
        for (answer, expected) in [
            (client.call("write", json!({"path": "/workspace/a"})).await, write),
            (client.call("read", json!({"path": "/workspace/a"})).await, read),
        ] {
            let reason = if answer.json()["result"]["isError"] == true { answer.denial().0 } else { String::new() };
            assert_eq!(reason, expected, "{age} s old");
        }
        let list = client.modern("tools/list", json!({})).await.json();
        assert_eq!(list["error"]["data"]["reason"].as_str().unwrap_or_default(), read, "{age} s old");
        assert_eq!(world.state.ready(), read.is_empty());
    }
}

#[tokio::test]
async fn the_origin_of_another_site_is_refused() {
    let world = World::new().await;
    let mut client = world.client().await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let answer = client.send(http::Method::POST, "/files/mcp", &[("origin", "https://evil.example")], body).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["data"]["reason"].as_str()),
        (403, Some("origin_refused"))
    );
}

#[tokio::test]
async fn refusals_are_counted_under_names_that_exist() {
    let world = World::new().await;
    let mut client = world.client().await;
    client.call("nope", json!({})).await;
    client.call("wipe", json!({})).await;
    client.call("read", json!({})).await;
    client.call("echo", json!({})).await;
    world.lines(4).await;
    let calls = |tool: &str, decision: &str| {
        let labels =
            format!(r#"decision="{decision}",principal="acme/coder",server="files",tenant="acme",tool="{tool}""#);
        world.metric("mcp_pod_calls_total", &labels)
    };
    assert_eq!((calls("", "denied"), calls("wipe", "denied"), calls("read", "denied")), (1.0, 1.0, 1.0));
    assert_eq!((calls("echo", "allowed"), calls("echo", "denied")), (1.0, 0.0));
    let denials = |reason: &str| {
        world.metric("mcp_pod_denials_total", &format!(r#"reason="{reason}",server="files",tenant="acme""#))
    };
    assert_eq!((denials("tool_unknown"), denials("argument_missing")), (1.0, 1.0));
    assert!((world.metric("mcp_fleet_policy_generation", r#"tenant="acme""#) - 1.0).abs() < f64::EPSILON);
    let text = world.metrics();
    assert!(!text.contains("nope"), "what a caller sent became a label");
}
