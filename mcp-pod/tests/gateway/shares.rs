//! Limits of a tenant and of its servers, which two gateways apply together.

use std::time::Duration;

use bytes::Bytes;
use mcp_fleet_policy::model::TenantPolicy;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Behaviour, Client, OTHER, Pair, Shim, Token, eventually, refusal};

const RESULT: &[u8] = b"{\"result\":{\"content\":[]}}\n";

fn unlimited(policy: &mut TenantPolicy) {
    policy.principals[0].limits.calls_per_minute = None;
    policy.principals[0].limits.max_concurrent_calls = None;
    policy.servers[0].limits.max_concurrent_calls = 1000;
    policy.principals[1].grants = policy.principals[0].grants.clone();
}

/// Calls until a call is admitted, and waits for its answer. A principal may have half of a server's calls.
async fn call_until_admitted(mut client: Client, reason: &'static str) {
    loop {
        let refused = refusal(&client.call("echo", json!({})).await);
        if refused.is_null() {
            return;
        }
        assert!(refused == reason || refused == "concurrency_limited", "{refused}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Lets callers of both principals call through both gateways until so many calls are in flight, and some time longer. Fails if there
/// are ever more than `limit`.
async fn fill(pair: &Pair, principals: &[&'static str], enough: usize, limit: usize, reason: &'static str) {
    let shim: &Shim = &pair.home.shim;
    shim.set_behaviour(Behaviour::Work(Bytes::from_static(RESULT)));
    let before = shim.calls().len();
    let mut callers = JoinSet::new();
    for number in 0..limit + 4 {
        let gateway = if number % 2 == 0 { &pair.home } else { &pair.edge };
        let principal = principals[number % principals.len()];
        let client = gateway.client(Token { principal, ..Token::default() }).await;
        callers.spawn(call_until_admitted(client, reason));
    }
    let in_flight = || shim.calls().len() - before;
    eventually("enough calls are in flight", || {
        assert!(in_flight() <= limit, "{} calls of {limit}", in_flight());
        in_flight() >= enough
    })
    .await;
    for _ in 0..20 {
        assert!(in_flight() <= limit, "{} calls of {limit}", in_flight());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    callers.abort_all();
    shim.set_behaviour(Behaviour::Answer(Bytes::from_static(RESULT)));
    shim.finish_work();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_of_a_tenant_are_limited_over_both_gateways() {
    let pair = Pair::start(|policy| {
        unlimited(policy);
        policy.traffic.max_concurrent_calls = Some(10);
    })
    .await;
    let reason = "tenant_concurrency_limited";
    // One principal gets nearly all, and then has to share it.
    fill(&pair, &[Token::default().principal], 9, 10, reason).await;
    fill(&pair, &[Token::default().principal, OTHER], 10, 10, reason).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_of_a_server_are_limited_over_both_gateways() {
    let pair = Pair::start(|policy| {
        unlimited(policy);
        policy.servers[0].limits.max_concurrent_calls = 10;
    })
    .await;
    fill(&pair, &[Token::default().principal, OTHER], 9, 10, "server_concurrency_limited").await;
}
