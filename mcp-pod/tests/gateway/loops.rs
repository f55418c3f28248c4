//! Agents that go round in circles: warnings, pauses and refusals.

use std::time::Duration;

use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::units::Micros;
use serde_json::{Value, json};

use crate::support::{CODER, OTHER, Options, ProcessGateway, Spent, TestGateway, Token, eventually};

const FAILS: &str =
    "{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"permission denied\"}],\"isError\":true}}\n";

/// Judges loops on the server, and lets both principals call it.
fn judged(policy: &mut TenantPolicy) {
    policy.servers[0].loops = LoopSettings::DEFAULT;
    policy.principals[1].grants = policy.principals[0].grants.clone();
}

fn denial(answer: &Value) -> &Value {
    &answer["result"]["_meta"]["mcp-fleet.dev/denial"]
}

fn warning(answer: &Value) -> &Value {
    &answer["result"]["_meta"]["mcp-fleet.dev/warning"]
}

#[tokio::test]
async fn an_agent_in_a_loop_is_stopped_with_evidence_and_its_neighbour_is_not() {
    let gateway = TestGateway::with(|policy| {
        judged(policy);
        policy.servers[0].tools[1].price = Micros::new(1000);
    })
    .await;
    gateway.shim.answer(FAILS);
    let mut client = gateway.client().await;
    let mut warnings = 0;
    let refused = loop {
        let answer = client.call("echo", json!({"text": "a"})).await.json();
        if !denial(&answer).is_null() {
            break answer;
        }
        warnings += u32::from(!warning(&answer).is_null());
        assert!(gateway.shim.calls().len() < 20, "never refused");
    };
    let calls = gateway.shim.calls().len();
    assert!(warnings >= 2, "{warnings} warnings");
    assert_eq!(denial(&refused)["reason"], "loop_detected");
    assert!(denial(&refused)["retryAfterMs"].as_u64().unwrap() > 0);
    let text = refused["result"]["content"][0]["text"].as_str().unwrap();
    let evidence = format!("\"echo\" of server \"files\" was called {calls} times");
    assert!(text.contains(&evidence) && text.contains("failed in the same way"), "{text}");

    // A refused call costs nothing, and its line says which loop it continues.
    let line = gateway.audit_line(calls + 1).await;
    assert_eq!((line["decision"].as_str(), line["reason"].as_str()), (Some("denied"), Some("loop_detected")));
    assert_eq!((line["loop"].as_str(), line["cost"].as_str()), (Some("retry"), Some("0")));
    let amount = Micros::new(1000 * calls as u64);
    assert_eq!(gateway.ledger.spent().await, Spent { calls: calls as u64, amount });
    let refusals = r#"action="refused",mode="enforce",principal="acme/coder",server="files",tenant="acme""#;
    assert!((gateway.metric("mcp_pod_loops_total", refusals) - 1.0).abs() < 1e-9);

    // The neighbour and the other tools of the agent still work.
    let mut other = gateway.client_with(&gateway.pki.token(Token { principal: OTHER, ..Token::default() })).await;
    assert!(denial(&other.call("echo", json!({"text": "a"})).await.json()).is_null());
    assert!(denial(&client.call("read", json!({"path": "/workspace/a.txt"})).await.json()).is_null());
}

#[tokio::test]
async fn a_poller_that_waits_as_it_is_told_is_never_refused() {
    let gateway = TestGateway::with(judged).await;
    let mut client = gateway.client().await;
    let mut slowed = 0;
    for poll in 0..7 {
        let answer = client.call("echo", json!({})).await.json();
        assert!(denial(&answer).is_null(), "poll {poll}: {answer}");
        if let Some(wait) = warning(&answer)["retryAfterMs"].as_u64().filter(|wait| *wait > 0) {
            slowed += 1;
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
    assert_eq!(slowed, 3);
    // The pause after the last poll was obeyed. The next one is not.
    assert!(denial(&client.call("echo", json!({})).await.json()).is_null());
    assert_eq!(client.call("echo", json!({})).await.denial().0, "loop_detected");
}

#[tokio::test]
async fn tolerated_polls_are_not_judged() {
    let gateway = TestGateway::with(|policy| {
        judged(policy);
        let tools = &mut policy.servers[0].tools;
        tools[1].polls = Polls::Tolerated;
    })
    .await;
    let mut client = gateway.client().await;
    for _ in 0..40 {
        let answer = client.call("echo", json!({})).await.json();
        assert_eq!(answer["result"], json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]}));
    }
}

#[tokio::test]
async fn in_monitor_mode_loops_are_only_counted_and_in_mode_off_not_even_that() {
    for mode in [Mode::Monitor, Mode::Disabled] {
        let gateway = TestGateway::with(|policy| {
            policy.servers[0].loops = LoopSettings { mode, ..LoopSettings::DEFAULT };
        })
        .await;
        gateway.shim.answer(FAILS);
        let mut client = gateway.client().await;
        for _ in 0..20 {
            let answer = client.call("echo", json!({})).await.json();
            assert!(answer["result"].get("_meta").is_none(), "{answer}");
        }
        assert_eq!(gateway.shim.calls().len(), 20);
        let counted = gateway.metrics().contains("action=\"refused\",mode=\"monitor\"");
        assert_eq!(counted, mode == Mode::Monitor);
        assert!(!gateway.metrics().contains("mode=\"enforce\""));
    }
}

#[tokio::test]
async fn a_warning_changes_nothing_else_in_a_result_of_either_era() {
    let structured = json!({"rows": [1, 2, {"text": "]}"}], "big": 12_345_678_901_234_567_890_u64});
    let content = json!([{"type": "text", "text": "two rows"}]);
    let result = json!({"content": content, "structuredContent": structured, "_meta": {"example.com/a": 1}});
    for legacy in [false, true] {
        let gateway = TestGateway::with(judged).await;
        gateway.shim.answer(&format!("{}\n", json!({"result": result})));
        let mut client = gateway.client().await;
        client.initialize("2025-11-25").await;
        let mut warned = Value::Null;
        for _ in 0..4 {
            assert!(warning(&warned).is_null());
            let answer =
                if legacy { client.legacy_call("echo", json!({})).await } else { client.call("echo", json!({})).await };
            warned = answer.json();
        }
        let text = warned["result"]["content"][1]["text"].as_str().unwrap();
        assert!(text.starts_with("Warning (loop_detected): \"echo\" of server \"files\" was called 4 times"), "{text}");
        let data = warning(&warned);
        assert_eq!((data["reason"].as_str(), data["retryAfterMs"].as_u64()), (Some("loop_detected"), Some(0)));
        assert_eq!(warned["result"]["structuredContent"], structured);
        assert_eq!(warned["result"]["content"][0], content[0]);
        assert_eq!(warned["result"]["_meta"]["example.com/a"], 1);
        assert_eq!(warned["result"].get("resultType").is_some(), !legacy);
        let line = gateway.audit_line(5).await;
        assert_eq!((line["decision"].as_str(), line["loop"].as_str()), (Some("allowed"), Some("unchanged")));
    }
}

#[tokio::test]
async fn the_message_of_a_repeated_error_ends_with_the_warning() {
    let gateway = TestGateway::with(judged).await;
    gateway.shim.answer("{\"error\":{\"code\":42,\"message\":\"no such table\",\"data\":{\"a\":1}}}\n");
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.call("echo", json!({})).await.error(), (42, "no such table".to_owned()));
    }
    let answer = client.call("echo", json!({})).await;
    let (code, text) = answer.error();
    assert!(code == 42 && text.starts_with("no such table Warning (loop_detected): "), "{text}");
    assert_eq!(answer.json()["error"]["data"], json!({"a": 1}));
}

#[tokio::test]
async fn failures_that_the_gateway_reports_count_as_well() {
    let gateway = TestGateway::with(judged).await;
    gateway
        .shim
        .answer("{\"refused\":{\"reason\":\"path_outside_roots\",\"detail\":\"a link\",\"forwarded\":false}}\n");
    let mut client = gateway.client().await;
    for number in 0..4 {
        let answer = client.call("read", json!({"path": format!("/workspace/{number}.txt")})).await;
        assert_eq!(answer.denial().0, "path_outside_roots");
        assert_eq!(warning(&answer.json()).is_null(), number < 3);
    }
}

#[tokio::test]
async fn the_operator_learns_of_a_refused_loop_once_a_minute() {
    let gateway = ProcessGateway::start(&Options::default(), judged).await;
    gateway.shim.answer(FAILS);
    let mut client = gateway.client(Token::default()).await;
    let mut refused = 0;
    while refused < 5 {
        refused += usize::from(!denial(&client.call("echo", json!({"text": "a"})).await.json()).is_null());
    }
    eventually("the operator has a report", || !gateway.operator.received.loops.lock().is_empty()).await;
    // Reports are sent in the order of their calls, so a second one would be there before that of another principal.
    let mut other = gateway.client(Token { principal: OTHER, ..Token::default() }).await;
    while denial(&other.call("echo", json!({"text": "a"})).await.json()).is_null() {}
    eventually("the operator has another report", || gateway.operator.received.loops.lock().len() > 1).await;
    let reports = gateway.operator.received.loops.lock().clone();
    let principals: Vec<&str> = reports.iter().map(|report| &*report.principal_uid).collect();
    assert_eq!(principals, [CODER, OTHER]);
    assert_eq!((&*reports[0].server, &*reports[0].tool, &*reports[0].kind), ("files", "echo", "retry"));
    assert!(reports[0].count >= 4 && !reports[0].cool_down, "{reports:?}");
}
