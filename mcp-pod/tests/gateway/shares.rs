//! Limits of a tenant and of its servers, which two gateways apply together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_fleet_policy::model::{Principal, TenantPolicy};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    Behaviour, CODER, Client, OTHER, Options, Pair, ProcessGateway, Shim, Token, eventually, home_of, refusal, until,
};

/// The principals. Each gateway is the home of two.
const PRINCIPALS: [&str; 4] = [CODER, OTHER, "third-uid", "fourth-uid"];
const RESULT: &[u8] = b"{\"result\":{\"content\":[]}}\n";

fn unlimited(policy: &mut TenantPolicy) {
    policy.principals[0].limits.calls_per_minute = None;
    policy.principals[0].limits.max_concurrent_calls = None;
    policy.servers[0].limits.max_concurrent_calls = 1000;
    policy.principals[1].grants = policy.principals[0].grants.clone();
    for uid in &PRINCIPALS[2..] {
        let name = uid.trim_end_matches("-uid").to_owned();
        policy.principals.push(Principal { name, uid: (*uid).into(), ..policy.principals[1].clone() });
    }
    let homes = PRINCIPALS.map(|principal| home_of(principal, &["pod-1", "pod-2"]));
    assert_eq!(homes.iter().filter(|home| **home == "pod-1").count(), 2, "{homes:?}");
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
    fill(&pair, &[CODER], 9, 10, reason).await;
    fill(&pair, &PRINCIPALS, 10, 10, reason).await;
}

/// Starts two gateways that may have ten calls of the server in flight together.
async fn with_ten_calls_of_a_server() -> Pair {
    let limited = |policy: &mut TenantPolicy| {
        unlimited(policy);
        policy.servers[0].limits.max_concurrent_calls = 10;
    };
    Pair::start(limited).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_of_a_server_are_limited_over_both_gateways() {
    let pair = with_ten_calls_of_a_server().await;
    fill(&pair, &PRINCIPALS, 10, 10, "server_concurrency_limited").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waits_for_what_the_other_gateway_does_not_use() {
    let pair = with_ten_calls_of_a_server().await;
    // Until calls do not wait any more because the gateways are new. Each has an equal part of the limit then.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let shim: &Shim = &pair.home.shim;
    shim.set_behaviour(Behaviour::Work(Bytes::from_static(RESULT)));
    let mut callers = JoinSet::new();
    for principal in PRINCIPALS.into_iter().filter(|principal| home_of(principal, &["pod-1", "pod-2"]) == "pod-1") {
        for _ in 0..4 {
            let mut client = pair.home.client(Token { principal, ..Token::default() }).await;
            callers.spawn(async move { refusal(&client.call("echo", json!({})).await) });
        }
    }
    eventually("all of them are in flight", || shim.calls().len() == 8).await;
    shim.finish_work();
    while let Some(refused) = callers.join_next().await {
        assert_eq!(refused.unwrap(), json!(null));
    }
}

/// Calls again and again, and counts the calls that are admitted.
async fn keep_calling(mut client: Client, admitted: Arc<AtomicU32>) {
    loop {
        let refused = refusal(&client.call("echo", json!({})).await);
        if refused.is_null() {
            admitted.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(refused, "tenant_rate_limited");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_of_a_tenant_is_limited_over_both_gateways() {
    const A_SECOND: f64 = 20.0;
    let started = Instant::now();
    let pair = Pair::start(|policy| {
        unlimited(policy);
        policy.traffic.calls_per_minute = Some(1200);
    })
    .await;
    let admitted = Arc::new(AtomicU32::new(0));
    let start = async |callers: &mut JoinSet<()>, principals: &[&'static str]| {
        for principal in principals {
            for gateway in [&pair.home, &pair.edge] {
                let client = gateway.client(Token { principal, ..Token::default() }).await;
                callers.spawn(keep_calling(client, Arc::clone(&admitted)));
            }
        }
    };
    let now = || f64::from(admitted.load(Ordering::Relaxed));
    // One principal, whose calls one gateway admits, gets nearly all; then all have to share it, and it goes.
    let mut first = JoinSet::new();
    start(&mut first, &[CODER]).await;
    for step in ["one principal", "all", "the others"] {
        let mut others = JoinSet::new();
        if step != "one principal" {
            start(&mut others, &PRINCIPALS[1..]).await;
        }
        if step == "the others" {
            first.shutdown().await;
        }
        until(&format!("{step} to get the rate"), async || {
            let (before, began) = (now(), Instant::now());
            tokio::time::sleep(Duration::from_secs(2)).await;
            // Buckets begin with one token.
            let most = 2.0 + A_SECOND * started.elapsed().as_secs_f64();
            assert!(now() <= most, "{} calls of {most}", now());
            assert!(others.try_join_next().is_none(), "a caller has failed");
            now() - before >= 0.8 * A_SECOND * began.elapsed().as_secs_f64()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_wait_for_the_first_share_of_a_gateway_that_joins() {
    let options = Options { places: 2, ..Options::default() };
    let first = ProcessGateway::start(&options, |policy| {
        unlimited(policy);
        policy.traffic.calls_per_minute = Some(6000);
    })
    .await;
    let moves = |principal: &&str| home_of(principal, &["pod-1", "pod-2"]) == "pod-2";
    let moving: Vec<_> = PRINCIPALS.into_iter().filter(moves).collect();
    // Its bucket begins with one token.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut callers = JoinSet::new();
    for (principal, tool) in [(moving[0], "fleet_status"), (moving[1], "echo")] {
        let mut client = first.client(Token { principal, ..Token::default() }).await;
        callers.spawn(async move {
            for _ in 0..120 {
                assert_eq!(refusal(&client.call(tool, json!({})).await), json!(null), "{tool}");
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = first.beside(&options, "pod-2").await;
    while let Some(finished) = callers.join_next().await {
        finished.unwrap();
    }
    eventually("the second gateway has admitted calls", || second.audit.count("\"fleet_status\"") > 30).await;
}
