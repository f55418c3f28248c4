//! Rates, concurrency, money, and the audit trail's own limit.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use mcp_fleet_policy::units::Micros;
use parking_lot::{Condvar, Mutex};
use serde_json::json;

use crate::support::{Act, Lines, OTHER, Spent, Token, World, eventually};

#[tokio::test]
async fn a_principal_that_calls_too_often_is_told_to_wait() {
    let world = World::with(|policy| policy.principals[0].limits.calls_per_minute = Some(1)).await;
    let mut client = world.client().await;
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    let answer = client.call("echo", json!({})).await;
    let (reason, text) = answer.denial();
    assert_eq!(reason, "rate_limited");
    let data = &answer.json()["result"]["_meta"]["mcp-fleet.dev/denial"];
    assert!(data["retryAfterMs"].as_i64().unwrap() > 50_000 && text.contains("Try again in"), "{text}");
    assert_eq!(world.shim.seen().len(), 1);
}

#[tokio::test]
async fn a_principal_that_is_refused_in_a_loop_is_not_listened_to_for_ever() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut refused = 0;
    let answer = loop {
        let answer = client.call("no_such_tool", json!({})).await;
        if answer.status == 429 {
            break answer;
        }
        refused += 1;
        assert!(refused < 20_000, "never slowed");
    };
    assert!(refused >= 3000, "slowed after {refused}");
    assert_eq!(answer.json()["error"]["data"]["reason"], "rate_limited");
    assert_eq!(answer.headers["retry-after"], "1");
    // What has no answer is no call either, whatever its method says.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")];
    let body = r#"{"jsonrpc":"2.0","method":"tools/call"}"#;
    let mut taken = 0;
    loop {
        let answer = client.send(Method::POST, "/files/mcp", &headers, body).await;
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 202);
        taken += 1;
        assert!(taken < 20_000, "never slowed");
    }
    // Others are heard, and so is it when it has waited.
    let mut other = world.client_with(&world.pki.token(Token { principal: OTHER, ..Token::default() })).await;
    assert_eq!(other.modern("tools/list", json!({})).await.status, 404, "it has no grant, and is told so");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn the_limits_of_principal_tenant_and_server_hold_calls_in_flight() {
    for reason in ["concurrency_limited", "tenant_concurrency_limited", "server_concurrency_limited"] {
        let world = World::with(|policy| match reason {
            "concurrency_limited" => policy.principals[0].limits.max_concurrent_calls = Some(1),
            "tenant_concurrency_limited" => policy.traffic.max_concurrent_calls = Some(1),
            _ => policy.servers[0].limits.max_concurrent_calls = 1,
        })
        .await;
        world.shim.act(Act::Hang);
        let mut hanging = world.client().await;
        let hung = tokio::spawn(async move { hanging.call("echo", json!({})).await });
        eventually("the first call is in flight", || world.shim.seen().len() == 1).await;
        assert_eq!(world.client().await.call("echo", json!({})).await.denial().0, reason);
        hung.abort();
    }
}

#[tokio::test]
async fn a_priced_call_is_paid_once_its_server_has_seen_it() {
    let world = World::with(|policy| policy.servers[0].tools[1].price = Micros::new(1500)).await;
    let mut client = world.client().await;
    client.call("echo", json!({})).await;
    client.call("echo", json!({})).await;
    let line = world.line(2).await;
    assert_eq!(line["cost"], "0.0015");
    assert_eq!(world.ledger.spent().await, Spent { calls: 2, amount: Micros::new(3000) });
    let labels = r#"currency="USD",principal="acme/coder",server="files",tenant="acme",tool="echo""#;
    assert!((world.metric("mcp_pod_spend_total", labels) - 0.003).abs() < 1e-9);
}

#[tokio::test]
async fn what_the_server_certainly_never_saw_costs_nothing() {
    let world = World::with(|policy| policy.servers[0].tools[1].price = Micros::new(1500)).await;
    let mut client = world.client().await;
    world.shim.answer("{\"refused\":{\"reason\":\"path_outside_roots\",\"detail\":\"a link\",\"forwarded\":false}}\n");
    assert_eq!(client.call("echo", json!({})).await.denial().0, "path_outside_roots");
    assert!(world.ledger.has_granted());
    assert_eq!(world.ledger.spent().await, Spent::default());
    let line = world.line(1).await;
    assert_eq!((line["decision"].as_str(), line["cost"].as_str()), (Some("denied"), Some("0")));
    world.shim.answer("{\"refused\":{\"reason\":\"upstream_timeout\",\"detail\":\"\",\"forwarded\":true}}\n");
    assert_eq!(client.call("echo", json!({})).await.denial().0, "upstream_timeout");
    assert_eq!(world.ledger.spent().await, Spent { calls: 1, amount: Micros::new(1500) });
    assert_eq!(world.line(2).await["decision"], "failed");
}

/// A sink that takes nothing until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut open = self.0.0.lock();
        while !*open {
            self.0.1.wait(&mut open);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_audited_is_denied() {
    let gate = Gate::default();
    let world = World::writing(gate.clone(), Lines::default()).await;
    world.change(|_| {});
    let mut client = world.client().await;
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
    assert_eq!(world.shim.seen().len(), calls, "a call went out without a line");
    *gate.0.0.lock() = true;
    gate.0.1.notify_all();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
}
