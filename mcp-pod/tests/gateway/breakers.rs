//! Circuit breakers: calls of a tool that fails are refused for a while.

use std::time::Duration;

use mcp_fleet_policy::model::{Breaker, SlowCalls};
use mcp_fleet_policy::units::Micros;
use serde_json::{Value, json};

use crate::support::{Behaviour, Client, OTHER, TestGateway, Token};

const SETTINGS: Breaker = Breaker {
    error_percent: 50,
    slow_calls: None,
    minimum_calls: 4,
    open_for: Duration::from_secs(5),
    half_open_calls: 2,
};
const DONE: &str = "{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n";
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

/// Starts a gateway with two principals that may call the same tools.
async fn start(breaker: Breaker) -> TestGateway {
    TestGateway::with(|policy| {
        policy.servers[0].breaker = breaker;
        policy.principals[1].grants = policy.principals[0].grants.clone();
    })
    .await
}

async fn other(gateway: &TestGateway) -> Client {
    gateway.client_with(&gateway.pki.token(Token { principal: OTHER, ..Token::default() })).await
}

/// Calls a tool and returns the reason of the denial, or nothing if it was answered.
async fn outcome(client: &mut Client, tool: &str) -> String {
    let answer = client.call(tool, json!({})).await;
    if answer.json()["result"]["isError"] == true { answer.denial().0 } else { String::new() }
}

fn retry_after(answer: &Value) -> Duration {
    let after = answer["result"]["_meta"]["mcp-fleet.dev/denial"]["retryAfterMs"].as_u64();
    Duration::from_millis(after.unwrap_or_else(|| panic!("{answer}")))
}

#[tokio::test]
async fn a_tool_that_fails_is_not_called_until_the_given_time() {
    let gateway = start(SETTINGS).await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    gateway.shim.answer("garbage\n");
    for _ in 0..4 {
        assert_eq!(outcome(&mut client, "echo").await, "upstream_invalid");
    }
    let legacy = client.legacy_call("echo", json!({})).await;
    assert_eq!(legacy.denial().0, "breaker_open", "sessions do not matter");
    let modern = client.call("echo", json!({})).await;
    assert_eq!(modern.denial().0, "breaker_open");
    assert!(retry_after(&modern.json()) <= SETTINGS.open_for);
    assert_eq!(gateway.shim.calls().len(), 4);
    assert_eq!(gateway.ledger.spent().await.calls, 4, "a refused call costs nothing");
    let line = gateway.audit_line(7).await;
    assert_eq!((line["decision"].as_str(), line["reason"].as_str()), (Some("denied"), Some("breaker_open")));
    // The breaker closes once the tool works again.
    gateway.shim.answer(DONE);
    tokio::time::sleep(retry_after(&modern.json())).await;
    for _ in 0..3 {
        assert_eq!(outcome(&mut client, "echo").await, "");
    }
    let transitions = |breaker: &str, state: &str| {
        let labels = format!(r#"breaker="{breaker}",server="files",state="{state}",tenant="acme",tool="echo""#);
        gateway.metric("mcp_pod_breaker_transitions_total", &labels)
    };
    let own = ["open", "half_open", "closed"].map(|state| transitions("own", state));
    assert_eq!((own, transitions("shared", "open")), ([1.0, 1.0, 1.0], 0.0));
}

#[tokio::test]
async fn one_principal_cannot_open_a_breaker_for_another() {
    let gateway = start(Breaker { open_for: LONG, ..SETTINGS }).await;
    let (mut attacker, mut other) = (gateway.client().await, other(&gateway).await);
    gateway.shim.set_behaviour(Behaviour::Close);
    for _ in 0..4 {
        assert_eq!(outcome(&mut attacker, "echo").await, "upstream_unavailable");
    }
    assert_eq!(outcome(&mut attacker, "echo").await, "breaker_open");
    gateway.shim.answer(DONE);
    assert_eq!(outcome(&mut other, "echo").await, "");
    assert_eq!(outcome(&mut attacker, "echo").await, "breaker_open");
    // Other tools have their own breakers.
    assert_eq!(outcome(&mut attacker, "read").await, "argument_missing");
    let read = attacker.call("read", json!({"path": "/workspace/a"})).await;
    assert_eq!(read.json()["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn failures_of_two_principals_open_the_breaker_for_all() {
    let gateway = TestGateway::with(|policy| {
        policy.servers[0].breaker = Breaker { open_for: LONG, ..SETTINGS };
        policy.servers[0].limits.timeout = Duration::from_secs(2);
        policy.principals[1].grants = policy.principals[0].grants.clone();
        let third = mcp_fleet_policy::model::Principal {
            name: "third".into(),
            uid: "third-uid".into(),
            ..policy.principals[0].clone()
        };
        policy.principals.push(third);
    })
    .await;
    let third = Token { principal: "third-uid", ..Token::default() };
    let (mut one, mut two) = (gateway.client().await, other(&gateway).await);
    gateway.shim.set_behaviour(Behaviour::Hang);
    for _ in 0..2 {
        let (one, two) = tokio::join!(outcome(&mut one, "echo"), outcome(&mut two, "echo"));
        assert_eq!([one, two], ["upstream_timeout", "upstream_timeout"]);
    }
    gateway.shim.answer(DONE);
    let mut third = gateway.client_with(&gateway.pki.token(third)).await;
    let answer = third.call("echo", json!({})).await;
    assert_eq!(answer.denial().0, "breaker_open");
    assert!(retry_after(&answer.json()) > LONG / 2);
    assert!((gateway.metric("mcp_pod_breaker_state", r#"server="files",tenant="acme",tool="echo""#) - 2.0).abs() < 0.1);
    // A policy neither opens nor closes a breaker.
    gateway.change_policy(|policy| policy.servers[0].breaker.open_for = Duration::from_millis(1));
    assert_eq!(outcome(&mut third, "echo").await, "breaker_open");
}

#[tokio::test]
async fn what_a_tool_reports_as_an_error_is_an_answer() {
    let gateway = start(SETTINGS).await;
    let (mut one, mut two) = (gateway.client().await, other(&gateway).await);
    for answer in [
        "{\"result\":{\"content\":[],\"isError\":true}}\n",
        "{\"error\":{\"code\":-32603,\"message\":\"broken\"}}\n",
        "{\"refused\":{\"reason\":\"path_outside_roots\",\"detail\":\"\",\"forwarded\":false}}\n",
    ] {
        gateway.shim.answer(answer);
        for _ in 0..6 {
            one.call("echo", json!({})).await;
            two.call("echo", json!({})).await;
        }
    }
    assert_eq!(gateway.shim.calls().len(), 36);
    gateway.shim.answer(DONE);
    assert_eq!(outcome(&mut one, "echo").await, "");
}

#[tokio::test]
async fn slow_calls_are_refused_to_their_caller_alone() {
    let slow_calls = Some(SlowCalls { percent: 100, duration: Duration::from_millis(20) });
    let gateway = start(Breaker { slow_calls, open_for: LONG, ..SETTINGS }).await;
    let (mut one, mut two) = (gateway.client().await, other(&gateway).await);
    gateway.shim.set_behaviour(Behaviour::Slow(vec![DONE.into()], Duration::from_millis(30)));
    for _ in 0..4 {
        assert_eq!(outcome(&mut one, "echo").await, "");
    }
    for _ in 0..3 {
        assert_eq!(outcome(&mut two, "echo").await, "");
    }
    assert_eq!(outcome(&mut one, "echo").await, "breaker_open");
    gateway.shim.answer(DONE);
    assert_eq!(outcome(&mut two, "echo").await, "");
}

#[tokio::test]
async fn a_probe_that_is_denied_or_cancelled_frees_its_place() {
    let open_for = Duration::from_millis(50);
    let gateway = start(Breaker { open_for, ..SETTINGS }).await;
    let mut client = gateway.client().await;
    gateway.shim.answer("garbage\n");
    for _ in 0..4 {
        outcome(&mut client, "echo").await;
    }
    tokio::time::sleep(open_for).await;
    // Denied after the breaker let it through, because nothing covers its price.
    let mut budgets = Vec::new();
    gateway.change_policy(|policy| {
        policy.servers[0].tools[1].price = Micros::new(1);
        budgets = std::mem::take(&mut policy.budgets);
    });
    for _ in 0..5 {
        assert_eq!(outcome(&mut client, "echo").await, "price_uncovered");
    }
    gateway.change_policy(|policy| policy.budgets = budgets);
    // Cancelled: both places are taken until then.
    gateway.shim.set_behaviour(Behaviour::Hang);
    let mut hung = Vec::new();
    for number in 5..=6 {
        let mut client = gateway.client().await;
        hung.push(tokio::spawn(async move { client.call("echo", json!({})).await }));
        crate::support::eventually("the probe is at the server", || gateway.shim.calls().len() == number).await;
    }
    assert_eq!(outcome(&mut client, "echo").await, "breaker_open");
    for call in &hung {
        call.abort();
    }
    gateway.audit_lines(12).await;
    gateway.shim.answer(DONE);
    assert_eq!(outcome(&mut client, "echo").await, "");
}
