//! Denials: calls that policy refuses, and what their callers learn.

use std::time::Duration;

use mcp_fleet_policy::model::BudgetMode;
use mcp_fleet_policy::units::Micros;
use serde_json::json;

use crate::support::{TestGateway, now};

#[tokio::test]
async fn a_tool_that_is_not_granted_looks_like_one_that_does_not_exist() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let hidden = client.call("wipe", json!({})).await;
    let missing = client.call("nope", json!({})).await;
    assert_eq!((hidden.status.as_u16(), hidden.error()), (200, (-32602, "Unknown tool: wipe".to_owned())));
    let expected = String::from_utf8(missing.body.to_vec()).unwrap().replace("nope", "wipe");
    assert_eq!(expected.as_bytes(), &hidden.body[..]);
    let lines = gateway.audit_lines(2).await;
    assert_eq!(
        (lines[0]["reason"].as_str(), lines[1]["reason"].as_str()),
        (Some("tool_not_granted"), Some("tool_unknown"))
    );
    assert!(gateway.shim.calls().is_empty());
}

#[tokio::test]
async fn every_argument_outside_its_rule_is_denied_with_its_reason() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let path = "/workspace/a.txt";
    for (tool, arguments, reason) in [
        ("read", json!({"path": path, "tail": 1}), "argument_undeclared"),
        ("read", json!({}), "argument_missing"),
        ("read", json!({"path": 7}), "argument_type"),
        ("read", json!({"path": path, "head": "5"}), "argument_type"),
        ("read", json!({"path": path, "head": "[5]"}), "argument_type"),
        ("read", json!({"path": path, "head": 101}), "argument_out_of_range"),
        ("read", json!({"path": "/etc/passwd"}), "path_outside_roots"),
        ("read", json!({"path": "/workspace/../etc/passwd"}), "path_outside_roots"),
        ("echo", json!({"text": "-rf"}), "argument_pattern"),
    ] {
        let (given, _) = client.call(tool, arguments.clone()).await.denial();
        assert_eq!(given, reason, "{arguments}");
    }
    assert!(gateway.shim.calls().is_empty());
    let line = gateway.audit_line(9).await;
    assert_eq!(
        (line["decision"].as_str(), line["class"].as_str(), line["tool"].as_str()),
        (Some("denied"), Some("Read"), Some("echo"))
    );
    assert!(line["arguments"].as_str().unwrap().starts_with("blake3-keyed:"));
    let (_, text) = client.call("read", json!({"path": path, "head": "5"})).await.denial();
    assert!(text.contains("`head` must be a whole number"), "{text}");
    assert!(!gateway.ledger.has_granted(), "a denied call took a lease");
}

#[tokio::test]
async fn a_modern_denial_is_a_complete_result() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    assert_eq!(client.call("read", json!({})).await.json()["result"]["resultType"], "complete");
    client.initialize("2025-11-25").await;
    assert_eq!(client.legacy_call("read", json!({})).await.json()["result"].get("resultType"), None);
}

#[tokio::test]
async fn an_exhausted_budget_says_when_it_resets() {
    let gateway = TestGateway::with(|policy| {
        policy.budgets[0].calls = None;
        policy.servers[0].tools[1].price = Micros::new(1500);
    })
    .await;
    let mut client = gateway.client().await;
    let resets_at = now() + 90;
    let written = jiff::Timestamp::from_second(resets_at).unwrap().to_string();
    gateway.ledger.exhaust(resets_at);
    let answer = client.call("echo", json!({})).await;
    let (reason, text) = answer.denial();
    assert_eq!(reason, "budget_exhausted");
    assert!(text.contains("5 USD a day") && text.contains(&written), "{text}");
    let data = &answer.json()["result"]["_meta"]["mcp-fleet.dev/denial"];
    assert_eq!(data["resetsAt"], written);
    assert!((80_000..=90_000).contains(&data["retryAfterMs"].as_i64().unwrap()), "{data}");
    assert!(gateway.shim.calls().is_empty());
}

#[tokio::test]
async fn a_stale_policy_denies_writes_first_and_then_everything() {
    for (age, write, read) in [(1, "", ""), (16, "policy_stale", ""), (61, "policy_stale", "policy_stale")] {
        let gateway = TestGateway::with_policy_age(Duration::from_secs(age)).await;
        let mut client = gateway.client().await;
        for (answer, expected) in [
            (client.call("write", json!({"path": "/workspace/a"})).await, write),
            (client.call("read", json!({"path": "/workspace/a"})).await, read),
        ] {
            let reason = if answer.json()["result"]["isError"] == true { answer.denial().0 } else { String::new() };
            assert_eq!(reason, expected, "{age} s old");
        }
        let list = client.modern("tools/list", json!({})).await.json();
        assert_eq!(list["error"]["data"]["reason"].as_str().unwrap_or_default(), read, "{age} s old");
        assert_eq!(gateway.state.ready(), read.is_empty());
    }
}

#[tokio::test]
async fn a_request_from_another_origin_is_rejected() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for origin in ["https://evil.example", "app://x", "null"] {
        let answer = client.send(http::Method::POST, "/files/mcp", &[("origin", origin)], body).await;
        let data = answer.json()["error"]["data"].clone();
        assert_eq!((answer.status.as_u16(), data["reason"].as_str()), (403, Some("origin_refused")), "{origin}");
        assert!(!data["hint"].as_str().unwrap().is_empty(), "{data}");
    }
    // Other headers of browsers say nothing that matters here.
    client.initialize("2025-11-25").await;
    let session = client.session.clone().unwrap();
    let headers = [("sec-fetch-site", "cross-site"), ("mcp-session-id", &session)];
    assert_eq!(client.send(http::Method::POST, "/files/mcp", &headers, body).await.status, 200);
}

#[tokio::test]
async fn denials_are_counted_under_known_names_only() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    client.call("nope", json!({})).await;
    client.call("wipe", json!({})).await;
    client.call("read", json!({})).await;
    client.call("echo", json!({})).await;
    gateway.audit_lines(4).await;
    let calls = |tool: &str, decision: &str| {
        let labels =
            format!(r#"decision="{decision}",principal="acme/coder",server="files",tenant="acme",tool="{tool}""#);
        gateway.metric("mcp_pod_calls_total", &labels)
    };
    assert_eq!((calls("", "denied"), calls("wipe", "denied"), calls("read", "denied")), (1.0, 1.0, 1.0));
    assert_eq!((calls("echo", "allowed"), calls("echo", "denied")), (1.0, 0.0));
    let denials = |reason: &str| {
        gateway.metric("mcp_pod_denials_total", &format!(r#"reason="{reason}",server="files",tenant="acme""#))
    };
    assert_eq!((denials("tool_unknown"), denials("argument_missing")), (1.0, 1.0));
    assert!((gateway.metric("mcp_fleet_policy_generation", r#"tenant="acme""#) - 1.0).abs() < f64::EPSILON);
    let text = gateway.metrics();
    assert!(!text.contains("nope"), "a name that a caller sent became a label");
}

#[tokio::test]
async fn a_budget_that_monitors_refuses_nothing_while_the_ledger_does_not_answer() {
    let gateway = TestGateway::with(|policy| {
        policy.budgets[0].mode = BudgetMode::Monitor;
        policy.budgets[0].calls = Some(1);
    })
    .await;
    gateway.ledger.pause();
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    }
    let status = client.call("fleet_status", json!({})).await.json();
    let shown = &status["result"]["structuredContent"]["budgets"][0];
    assert_eq!(shown["mode"], "Monitor", "a budget that refuses nothing is shown as a limit");
}
