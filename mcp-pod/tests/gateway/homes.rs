//! Two gateways of one tenant: at every moment, one of them admits calls.

use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Behaviour, Client, Options, ProcessGateway, Token, eventually};

const DONE: Bytes = Bytes::from_static(b"{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n");
/// Long enough to notice that a gateway does not wait for its end, and short enough to wait for it.
const SHORT: Options<'static> = Options {
    arguments: &[],
    log_level: "info",
    lease: Duration::from_secs(8),
    places: 1,
    peer_listen: None,
    read_log: true,
};

/// Calls a tool with an argument that shows where and when the call was made.
async fn call(client: &mut Client, text: &str) -> Result<(), Value> {
    let answer = client.call("echo", json!({"text": text})).await.json();
    if answer["result"]["isError"] == true {
        Err(answer["result"]["_meta"]["mcp-fleet.dev/denial"].clone())
    } else {
        Ok(())
    }
}

/// Calls a tool until a call is admitted. All earlier ones are refused because the principal has another home.
async fn call_until_admitted(client: &mut Client, text: &str) -> usize {
    for refused in 0..100 {
        match call(client, text).await {
            Ok(()) => return refused,
            Err(denial) => {
                assert_eq!(denial["reason"], "home_undecided", "{denial}");
                assert!(denial["retryAfterMs"].as_u64().unwrap() >= 1, "{denial}");
            }
        }
    }
    panic!("no call was admitted");
}

/// Returns the texts of the calls that reached the server, in order.
fn texts(gateway: &ProcessGateway) -> Vec<String> {
    let text = |params: &Value| params["arguments"]["text"].as_str().unwrap().to_owned();
    gateway.shim.calls().iter().map(|call| text(&call.params)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_admits_no_call_until_the_one_before_it_has_stopped() {
    let options = Options::default();
    let mut first = ProcessGateway::start(&options, |_| {}).await;
    let second = first.beside(&options, "pod-2").await;
    let (mut at_first, mut at_second) = (first.client(Token::default()).await, second.client(Token::default()).await);
    call(&mut at_first, "first").await.unwrap();
    let denial = call(&mut at_second, "second").await.unwrap_err();
    assert_eq!(denial["reason"], "home_undecided");
    let retry_after = denial["retryAfterMs"].as_u64().unwrap();
    assert!((30_000..=66_150).contains(&retry_after), "the first has its lease for so long: {denial}");
    // A built-in tool counts against the same limits.
    let answer = at_second.call("fleet_status", json!({})).await;
    assert_eq!(answer.denial().0, "home_undecided");
    call(&mut at_first, "first").await.unwrap();

    // A planned change: the lease is handed over, so nobody waits for its end.
    let waiting = tokio::spawn(async move { call_until_admitted(&mut at_second, "second").await });
    first.signal(Signal::TERM);
    // Each refused call has waited for two seconds.
    assert!(waiting.await.unwrap() <= 20);
    eventually("the first gateway ends", || !first.is_running()).await;
    assert_eq!(texts(&first), ["first", "first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_paused_for_longer_than_its_lease_admits_nothing() {
    let first = ProcessGateway::start(&SHORT, |_| {}).await;
    let second = first.beside(&SHORT, "pod-2").await;
    let (mut at_first, mut at_second) = (first.client(Token::default()).await, second.client(Token::default()).await);
    call(&mut at_first, "first").await.unwrap();
    first.signal(Signal::STOP);
    call_until_admitted(&mut at_second, "second").await;
    // The call is already there when the process goes on, before it has heard of the operator.
    let resumed = tokio::spawn(async move { call(&mut at_first, "first-again").await });
    first.signal(Signal::CONT);
    assert_eq!(resumed.await.unwrap().unwrap_err()["reason"], "home_undecided");
    call(&mut at_second, "second").await.unwrap();
    assert_eq!(texts(&first), ["first", "second", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_home_of_a_killed_gateway_moves_when_its_lease_has_ended() {
    let mut first = ProcessGateway::start(&SHORT, |_| {}).await;
    let second = first.beside(&SHORT, "pod-2").await;
    let mut at_second = second.client(Token::default()).await;
    call(&mut first.client(Token::default()).await, "first").await.unwrap();
    first.kill();
    assert!(call_until_admitted(&mut at_second, "second").await >= 1);
    assert_eq!(texts(&first), ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_at_the_gateway_before_count_until_they_end() {
    let options = Options::default();
    let mut first =
        ProcessGateway::start(&options, |policy| policy.principals[0].limits.max_concurrent_calls = Some(1)).await;
    let second = first.beside(&options, "pod-2").await;
    let (mut at_first, mut at_second) = (first.client(Token::default()).await, second.client(Token::default()).await);
    first.shim.set_behaviour(Behaviour::Work(DONE));
    let running = tokio::spawn(async move { call(&mut at_first, "first").await });
    eventually("the call runs", || first.shim.calls().len() == 1).await;
    first.signal(Signal::TERM);
    let denial = loop {
        let denial = call(&mut at_second, "second").await.unwrap_err();
        if denial["reason"] != "home_undecided" {
            break denial;
        }
    };
    assert_eq!(denial["reason"], "concurrency_limited", "{denial}");

    first.shim.finish_work();
    running.await.unwrap().unwrap();
    first.shim.set_behaviour(Behaviour::Answer(DONE));
    while let Err(denial) = call(&mut at_second, "second").await {
        assert_eq!(denial["reason"], "concurrency_limited", "{denial}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the first gateway ends", || !first.is_running()).await;
    assert_eq!(texts(&first), ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_never_reach_a_server_from_two_gateways_at_a_time() {
    let options = Options::default();
    let mut first = ProcessGateway::start(&options, |policy| {
        policy.principals[0].limits.calls_per_minute = None;
        policy.principals[0].limits.max_concurrent_calls = None;
    })
    .await;
    let second = first.beside(&options, "pod-2").await;
    let mut callers = Vec::new();
    for (gateway, text) in [(&first, "first"), (&second, "second")] {
        for _ in 0..4 {
            let mut client = gateway.client(Token::default()).await;
            callers.push(tokio::spawn(async move {
                let mut admitted = 0;
                // Until the gateway ends, or has admitted enough.
                while admitted < 400
                    && let Ok(answer) = client.try_call("echo", json!({"text": text})).await
                {
                    admitted += usize::from(answer.json()["result"]["isError"] != true);
                }
                admitted
            }));
        }
    }
    eventually("the first gateway is busy", || first.shim.calls().len() > 100).await;
    first.signal(Signal::TERM);
    let mut admitted = 0;
    for caller in callers {
        admitted += caller.await.unwrap();
    }
    eventually("the first gateway ends", || !first.is_running()).await;
    let texts = texts(&first);
    let at_second = texts.iter().position(|text| text == "second").unwrap();
    let late = texts[at_second..].iter().filter(|text| *text == "first").count();
    assert_eq!(late, 0, "calls of the first gateway after the first call of the second");
    // Each call that was answered was decided once.
    assert!(texts.len() >= admitted && texts.len() <= admitted + 4, "{} calls, {admitted} answers", texts.len());
}
