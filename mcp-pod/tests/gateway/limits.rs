//! Limits on rates, concurrency and money, and the limit of the audit log.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mcp_fleet_policy::price::{Pointer, ResultPrice};
use mcp_fleet_policy::units::Micros;
use serde_json::json;

use crate::support::{
    AuditLog, Behaviour, BlockedSink, OTHER, Spent, TestGateway, Token, call_until_limited, eventually,
    send_until_limited, until,
};

#[tokio::test]
async fn a_principal_that_calls_too_often_gets_a_retry_time() {
    let gateway = TestGateway::with(|policy| policy.principals[0].limits.calls_per_minute = Some(1)).await;
    let mut client = gateway.client().await;
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    let answer = client.call("echo", json!({})).await;
    let (reason, text) = answer.denial();
    assert_eq!(reason, "rate_limited");
    let data = &answer.json()["result"]["_meta"]["mcp-fleet.dev/denial"];
    assert!(data["retryAfterMs"].as_i64().unwrap() > 10_000 && text.contains("Try again in"), "{text}");
    assert_eq!(gateway.shim.calls().len(), 1);
}

#[tokio::test]
async fn ten_calls_at_once_right_after_a_start_are_done_when_they_are_repeated_as_told() {
    let gateway = TestGateway::with(|policy| {
        policy.principals[0].limits.calls_per_minute = Some(600);
        policy.principals[0].limits.burst = Some(60);
    })
    .await;
    // Every rate limit starts with one call, whatever the burst.
    let calls = (0..10).map(|_| async {
        let mut client = gateway.client().await;
        let mut refused = 0;
        loop {
            let result = &client.call("echo", json!({})).await.json()["result"];
            let denial = &result["_meta"]["mcp-fleet.dev/denial"];
            if denial.is_null() {
                assert_eq!(result["content"][0]["text"], "done");
                return refused;
            }
            assert_eq!(denial["reason"], "rate_limited");
            let retry_after = denial["retryAfterMs"].as_u64().unwrap();
            assert!(retry_after <= 100, "ten calls a second are allowed: {retry_after} ms");
            refused += 1;
            tokio::time::sleep(Duration::from_millis(retry_after)).await;
        }
    });
    let refused: usize = join_all(calls).await.into_iter().sum();
    assert!(refused > 0, "the calls were not made at once");
    assert_eq!(gateway.shim.calls().len(), 10, "each call is made once");
}

#[tokio::test]
async fn a_principal_that_keeps_sending_denied_requests_gets_429() {
    let gateway = TestGateway::new().await;
    let statuses = call_until_limited((gateway.address, &gateway.pki), 1).await;
    let denied = statuses.iter().position(|status| *status == 429).unwrap();
    assert!(denied >= 3000, "limited after {denied} requests");
    // The limit also applies to notifications, which have no answer and so are not calls, whatever their method.
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")];
    let body = r#"{"jsonrpc":"2.0","method":"tools/call"}"#;
    let statuses = send_until_limited((gateway.address, &gateway.pki), &headers, body, 1).await;
    assert!(statuses.iter().all(|status| [202, 429].contains(status)), "{statuses:?}");
    let refused = gateway.audit_lines(1).await.into_iter().find(|line| line["reason"] == "rate_limited");
    assert_eq!(refused.unwrap()["decision"], "denied");
    // Other principals are still served, and so is this one after a second.
    let mut other = gateway.client_with(&gateway.pki.token(Token { principal: OTHER, ..Token::default() })).await;
    assert_eq!(other.modern("tools/list", json!({})).await.status, 404, "it has no grant");
    let mut client = gateway.client().await;
    until("the agent is served again", async || client.call("echo", json!({})).await.status == 200).await;
}

#[tokio::test]
async fn principal_tenant_and_server_limit_concurrent_calls() {
    for reason in ["concurrency_limited", "tenant_concurrency_limited", "server_concurrency_limited"] {
        let gateway = TestGateway::with(|policy| match reason {
            "concurrency_limited" => policy.principals[0].limits.max_concurrent_calls = Some(1),
            "tenant_concurrency_limited" => policy.traffic.max_concurrent_calls = Some(1),
            _ => policy.servers[0].limits.max_concurrent_calls = 1,
        })
        .await;
        gateway.shim.set_behaviour(Behaviour::Hang);
        let mut hanging = gateway.client().await;
        let hung = tokio::spawn(async move { hanging.call("echo", json!({})).await });
        eventually("the first call is in flight", || gateway.shim.calls().len() == 1).await;
        assert_eq!(gateway.client().await.call("echo", json!({})).await.denial().0, reason);
        hung.abort();
    }
}

#[tokio::test]
async fn one_agent_cannot_take_all_of_a_server_that_others_may_call() {
    let gateway = TestGateway::with(|policy| {
        policy.servers[0].limits.max_concurrent_calls = 16;
        policy.principals[1].grants = policy.principals[0].grants.clone();
    })
    .await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    let mut hung = Vec::new();
    for number in 1..=8 {
        let mut client = gateway.client().await;
        hung.push(tokio::spawn(async move { client.call("echo", json!({})).await }));
        eventually("the call is in flight", || gateway.shim.calls().len() == number).await;
    }
    let (reason, text) = gateway.client().await.call("echo", json!({})).await.denial();
    assert_eq!(reason, "concurrency_limited");
    assert!(text.contains("may have 8 of the server's 16 calls in flight"), "{text}");
    gateway.shim.answer("{\"result\":{}}\n");
    let mut other = gateway.client_with(&gateway.pki.token(Token { principal: OTHER, ..Token::default() })).await;
    assert_eq!(other.call("echo", json!({})).await.json()["result"], json!({"resultType": "complete"}));
    hung.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_answered_call_is_charged_its_price() {
    let gateway = TestGateway::with(|policy| policy.servers[0].tools[1].price = Micros::new(1500)).await;
    let mut client = gateway.client().await;
    client.call("echo", json!({})).await;
    client.call("echo", json!({})).await;
    let line = gateway.audit_line(2).await;
    assert_eq!(line["cost"], "0.0015");
    assert_eq!(gateway.ledger.spent().await, Spent { calls: 2, amount: Micros::new(3000) });
    let labels = r#"currency="USD",principal="acme/coder",server="files",tenant="acme",tool="echo""#;
    assert!((gateway.metric("mcp_pod_spend_total", labels) - 0.003).abs() < 1e-9);
}

#[tokio::test]
async fn a_call_whose_result_states_its_price_reserves_the_most_and_is_charged_what_it_states() {
    let gateway = TestGateway::with(|policy| {
        let tool = &mut policy.servers[0].tools[1];
        tool.price = Micros::new(5000);
        let pointer = Pointer::parse("/usage/cost").unwrap();
        tool.result_price = Some(Arc::new(ResultPrice { pointer, minimum: Micros::ZERO }));
    })
    .await;
    let mut client = gateway.client().await;
    let mut total = 0;
    let stated = |cost: &str| format!("{{\"result\":{{\"structuredContent\":{{\"usage\":{{\"cost\":{cost}}}}}}}}}\n");
    let answers = [
        (stated("0.0012345"), "0.001235", 1235),
        (stated("-7"), "0", 0),
        (stated("9"), "0.005", 5000),
        (stated("\"0\""), "0.005", 5000),
        ("{\"result\":{\"content\":[],\"isError\":true}}\n".to_owned(), "0.005", 5000),
        ("{\"error\":{\"code\":-32000,\"message\":\"m\"}}\n".to_owned(), "0.005", 5000),
    ];
    for (number, (answer, cost, micros)) in answers.into_iter().enumerate() {
        gateway.shim.answer(answer.clone().leak());
        client.call("echo", json!({"text": number.to_string()})).await;
        assert_eq!(gateway.audit_line(number + 1).await["cost"], cost, "{answer}");
        total += micros;
    }
    assert_eq!(gateway.ledger.spent().await, Spent { calls: 6, amount: Micros::new(total) });
    let labels = r#"currency="USD",principal="acme/coder",server="files",tenant="acme",tool="echo""#;
    assert!((gateway.metric("mcp_pod_spend_total", labels) - 0.021_235).abs() < 1e-9);
}

#[tokio::test]
async fn a_call_that_never_reached_the_server_costs_nothing() {
    let gateway = TestGateway::with(|policy| policy.servers[0].tools[1].price = Micros::new(1500)).await;
    let mut client = gateway.client().await;
    gateway
        .shim
        .answer("{\"refused\":{\"reason\":\"path_outside_roots\",\"detail\":\"a link\",\"forwarded\":false}}\n");
    assert_eq!(client.call("echo", json!({})).await.denial().0, "path_outside_roots");
    assert!(gateway.ledger.has_granted());
    assert_eq!(gateway.ledger.spent().await, Spent::default());
    let line = gateway.audit_line(1).await;
    assert_eq!((line["decision"].as_str(), line["cost"].as_str()), (Some("denied"), Some("0")));
    gateway.shim.answer("{\"refused\":{\"reason\":\"upstream_timeout\",\"detail\":\"\",\"forwarded\":true}}\n");
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_timeout");
    assert_eq!(gateway.ledger.spent().await, Spent { calls: 1, amount: Micros::new(1500) });
    assert_eq!(gateway.audit_line(2).await["decision"], "failed");
}

#[tokio::test]
async fn a_call_that_cannot_be_audited_is_denied() {
    let sink = BlockedSink::default();
    let gateway = TestGateway::with_audit_sink(sink.clone(), AuditLog::default()).await;
    gateway.change_policy(|_| {});
    let mut client = gateway.client().await;
    let mut denied = None;
    for number in 0..5000 {
        let answer = client.call("echo", json!({})).await;
        if answer.json()["result"]["isError"] == true {
            denied = Some((number, answer.denial().0));
            break;
        }
    }
    let (calls, reason) = denied.expect("never denied");
    assert_eq!(reason, "audit_unavailable");
    assert_eq!(gateway.shim.calls().len(), calls, "a call was forwarded without an audit line");
    sink.open();
    let done = async || client.call("echo", json!({})).await.json()["result"]["content"][0]["text"] == "done";
    until("a call is admitted", done).await;
}
