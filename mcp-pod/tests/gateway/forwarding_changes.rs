//! Homes that move while requests are forwarded, because gateways come, go, and are killed.

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_fleet_policy::model::TenantPolicy;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, Options, Pair, ProcessGateway, Shim, Token, eventually, home_of_coder, refusal, until};

fn unlimited(policy: &mut TenantPolicy) {
    policy.principals[0].limits.calls_per_minute = None;
    policy.principals[0].limits.max_concurrent_calls = None;
}

/// How calls ended, by the text that they carried: with a reason if they were not answered.
type Outcomes = BTreeMap<String, Option<Value>>;

/// Checks that each call was made as often as its outcome says. Returns how many were answered.
fn check(outcomes: &Outcomes, shim: &Shim) -> usize {
    let mut made = BTreeMap::new();
    for call in shim.calls() {
        *made.entry(call.params["arguments"]["text"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    for (text, outcome) in outcomes {
        let made = made.remove(text).unwrap_or(0);
        match outcome.as_ref().map(|reason| reason.as_str().unwrap()) {
            None => assert_eq!(made, 1, "{text} was answered"),
            // Both say that the call may have been made.
            Some("transport" | "home_lost") => assert!(made <= 1, "{text} was made {made} times"),
            Some(reason) => assert_eq!((reason, made), ("home_undecided", 0), "{text}"),
        }
    }
    assert_eq!(made, BTreeMap::new());
    outcomes.values().filter(|outcome| outcome.is_none()).count()
}

/// Calls until the gateway ends or `enough` calls have been answered. Returns how each ended: by the text that it carried.
async fn call_until_the_end(mut client: Client, name: String, enough: usize) -> BTreeMap<String, Option<Value>> {
    let mut outcomes = BTreeMap::new();
    for number in 0..enough {
        let text = format!("{name}-{number}");
        let Ok(answer) = client.try_call("echo", json!({"text": text})).await else {
            outcomes.insert(text, Some(json!("transport")));
            break;
        };
        let message = answer.json();
        let refused = message["result"]["isError"] == true || message.get("error").is_some();
        outcomes.insert(text, refused.then(|| refusal(&answer)));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_made_twice_or_lost_while_gateways_come_and_go() {
    let options = Options { places: 3, ..Options::default() };
    let first = ProcessGateway::start(&options, unlimited).await;
    let second = first.beside(&options, "pod-2").await;
    let mut callers = Vec::new();
    for gateway in [&first, &second] {
        for number in 0..3 {
            let client = gateway.client(Token::default()).await;
            let name = format!("{}-{number}", gateway.pod_uid);
            callers.push(tokio::spawn(call_until_the_end(client, name, 400)));
        }
    }
    eventually("calls are made", || first.shim.calls().len() > 50).await;
    let third = first.beside(&options, "pod-3").await;
    let client = third.client(Token::default()).await;
    callers.push(tokio::spawn(call_until_the_end(client, "pod-3".to_owned(), 100)));
    let calls = first.shim.calls().len();
    eventually("calls are made", || first.shim.calls().len() > calls + 50).await;
    // Its principals, which are all that call, get another home.
    let gateways = [&first, &second, &third];
    let home = home_of_coder(&["pod-1", "pod-2", "pod-3"]);
    gateways.iter().find(|gateway| gateway.pod_uid == home).unwrap().signal(Signal::TERM);
    let mut outcomes = BTreeMap::new();
    for caller in callers {
        outcomes.extend(caller.await.unwrap());
    }
    let answered = check(&outcomes, &first.shim);
    assert!(answered > 200, "{answered} of {} calls were answered", outcomes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_through_the_edge_wait_for_the_gateway_that_follows_their_home() {
    let mut pair = Pair::start(unlimited).await;
    let mut callers = Vec::new();
    for number in 0..3 {
        let client = pair.edge.client(Token::default()).await;
        callers.push(tokio::spawn(call_until_the_end(client, format!("{number}"), 300)));
    }
    eventually("calls are made", || pair.home.shim.calls().len() > 30).await;
    pair.home.signal(Signal::TERM);
    let mut outcomes = BTreeMap::new();
    for caller in callers {
        outcomes.extend(caller.await.unwrap());
    }
    let refused: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_some()).collect();
    assert_eq!(check(&outcomes, &pair.edge.shim), 900, "{refused:?}");
    eventually("the home has ended", || !pair.home.is_running()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_made_twice_when_a_home_is_killed() {
    let options = Options { places: 2, lease: Duration::from_secs(8), ..Options::default() };
    let mut pair = Pair::start_with(&options, unlimited).await;
    let mut callers = Vec::new();
    for number in 0..4 {
        let client = pair.edge.client(Token::default()).await;
        callers.push(tokio::spawn(call_until_the_end(client, format!("{number}"), 100)));
    }
    eventually("calls are made", || pair.home.shim.calls().len() > 30).await;
    pair.home.kill();
    let mut client = pair.edge.client(Token::default()).await;
    until("the edge is the home", async || refusal(&client.call("echo", json!({"text": "probe"})).await).is_null())
        .await;
    let mut outcomes = BTreeMap::new();
    for caller in callers {
        outcomes.extend(caller.await.unwrap());
    }
    // The last one was made by the probe.
    outcomes.insert("probe".to_owned(), None);
    let answered = check(&outcomes, &pair.edge.shim);
    assert!(answered > 30, "{answered} of {} calls were answered", outcomes.len());
    assert!(pair.forwarded("unreachable").await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_cannot_listen_for_others_serves_its_clients() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = Options { places: 2, ..Options::default() };
    let options = Options { peer_listen: Some(taken.local_addr().unwrap()), ..both };
    let gateway = ProcessGateway::start(&options, unlimited).await;
    assert_eq!(gateway.log.count("while its port is not free"), 0, "there is nobody to listen for");
    let _other = gateway.beside(&both, "pod-2").await;
    let mut client = gateway.client(Token::default()).await;
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    assert!(gateway.metric("mcp_pod_peer_listener_up").await < 1.0);
    eventually("the log says why", || gateway.log.count("while its port is not free") == 1).await;
    drop(taken);
    until("the port is used once it is free", async || gateway.metric("mcp_pod_peer_listener_up").await > 0.0).await;
}
