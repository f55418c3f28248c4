//! Limits on what is forwarded: rates, memory and connections, at both ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use http::Method;
use http_body_util::BodyExt as _;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::units::Bytes as Size;
use mcp_pod::tls::{client_config, peer_name};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Behaviour, GATEWAY_URI, OTHER, Options, Pair, ProcessGateway, Token, eventually, modern, refusal, until,
};

/// Calls at once with which a principal's allowance of requests begins that are not admitted calls, and calls a second by which
/// it grows.
const ALLOWANCE: (f64, f64) = (3000.0, 100.0);
/// Gateways with this budget have 16 MiB for connections, 8 MiB of them for peers, and 32 MiB for requests.
const SMALL: &[&str] = &["--memory-budget", "48Mi"];

fn unlimited(policy: &mut TenantPolicy) {
    policy.principals[0].limits.calls_per_minute = None;
    policy.principals[0].limits.max_concurrent_calls = None;
    policy.servers[0].limits.max_concurrent_calls = 1000;
    // The second principal has the grants of the first, and half of the server's calls.
    policy.principals[1].grants = policy.principals[0].grants.clone();
}

async fn small_pair() -> Pair {
    Pair::start_with(&Options { places: 2, arguments: SMALL, ..Options::default() }, unlimited).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_the_home_admits_take_nothing_from_the_allowance_at_the_edge() {
    let pair = Pair::start(unlimited).await;
    let started = Instant::now();
    let (mut callers, mut calls) = (JoinSet::new(), 0_u32);
    let enough = |calls: u32| {
        let (at_once, a_second) = ALLOWANCE;
        f64::from(calls) > at_once + a_second * (started.elapsed().as_secs_f64() + 1.0)
    };
    for _ in 0..8 {
        callers.spawn(pair.edge.client(Token::default()).await.calls(100));
    }
    while !enough(calls) {
        assert!(calls < 200_000, "the machine is too slow for this test");
        let (client, answers) = callers.join_next().await.unwrap().unwrap();
        for answer in answers {
            assert_eq!(answer.json()["result"]["content"][0]["text"], "done", "call {calls}: {answer:?}");
            assert!(!answer.headers.contains_key("mcp-fleet-admitted"), "{answer:?}");
            calls += 1;
        }
        callers.spawn(client.calls(100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_that_are_no_calls_ends_at_the_edge() {
    let pair = Pair::start(unlimited).await;
    let (mut client, mut listed) = (pair.edge.client(Token::default()).await, 0);
    let forwarded = pair.forwarded("answered").await;
    let mut floods = JoinSet::new();
    for _ in 0..8 {
        let mut client = pair.edge.client(Token::default()).await;
        floods.spawn(async move {
            let mut listed = 0;
            // A refusal for a message without a method is cheaper than a list.
            while client.send(Method::POST, "/files/mcp", &[], "{}").await.status != 429 {
                listed += 1;
                assert!(listed < 100_000, "never limited");
            }
            listed
        });
    }
    while let Some(flood) = floods.join_next().await {
        listed += flood.unwrap();
    }
    eventually("the edge audits what it refuses", || Pair::reasons(&pair.edge).contains(&"rate_limited".to_owned()))
        .await;
    let answered = pair.forwarded("answered").await - forwarded;
    assert!(answered <= listed + 8, "{answered} were forwarded, and {listed} were not limited");
    // Whoever waits is heard again.
    until("a call is admitted", async || client.call("echo", json!({})).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_requests_of_one_principal_do_not_use_up_the_memory() {
    let pair = small_pair().await;
    pair.home.shim.set_behaviour(Behaviour::Hang);
    let mut calls = JoinSet::new();
    let refused = loop {
        let mut client = pair.edge.client(Token::default()).await;
        calls.spawn(async move { client.call("echo", json!({})).await });
        // One after the other, so that none waits for its connection.
        let (held, mut answer) = (calls.len(), None);
        until("the call runs or is refused", async || {
            answer = calls.try_join_next();
            answer.is_some() || pair.home.shim.calls().len() == held
        })
        .await;
        if let Some(answer) = answer {
            break answer.unwrap();
        }
        assert!(calls.len() < 500, "500 requests are held");
    };
    assert_eq!((refused.status.as_u16(), refusal(&refused)), (429, json!("concurrency_limited")));
    // Two thirds of its share of a quarter of 32 MiB at the edge, 96 KiB each and its body; a third of 8 MiB at the home, 48 KiB each.
    let held = pair.home.shim.calls().len();
    assert!((50..=56).contains(&held), "{held} requests are held");
    // The other principal has as much.
    let mut other = pair.edge.client(Token { principal: OTHER, ..Token::default() }).await;
    assert!(other.modern("tools/list", json!({})).await.json()["result"]["tools"].is_array());
    calls.shutdown().await;
    for gateway in [&pair.edge, &pair.home] {
        for used in ["requests", "connections"] {
            let reserved = format!("mcp_pod_memory_reserved_bytes{{use=\"{used}\"}}");
            until("the memory is free again", async || gateway.metric(&reserved).await < 6.0 * 1024.0 * 1024.0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_a_principal_does_not_read_do_not_break_those_of_another() {
    let options = Options { places: 2, arguments: &["--memory-budget", "96Mi"], ..Options::default() };
    let pair = Pair::start_with(&options, |policy| {
        unlimited(policy);
        policy.servers[0].limits.max_response = Size::new(64 << 20);
    })
    .await;
    pair.home.shim.answer(&format!("{{\"result\":{{\"a\":\"{}\"}}}}\n", "x".repeat(2 << 20)));
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Each holds an answer at the home, of which the edge takes what fits into its buffers.
    let mut unread = Vec::new();
    while unread.len() < 12 {
        let mut client = pair.edge.client(Token::default()).await;
        let response = client.start(Method::POST, "/files/mcp", &headers, body.clone()).await;
        if response.status() == 429 {
            break;
        }
        unread.push((client, response));
    }
    assert!(unread.len() >= 4, "{} answers", unread.len());
    let mut other = pair.edge.client(Token { principal: OTHER, ..Token::default() }).await;
    let answer = other.call("echo", json!({})).await;
    assert_eq!(answer.json()["result"]["a"].as_str().map(str::len), Some(2 << 20));
    // They are whole if they are read after all.
    let (_client, response) = unread.pop().unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes().len() > 2 << 20);
}

/// Opens connections without a handshake, from many addresses.
async fn strangers(address: SocketAddr, count: u8) -> Vec<TcpStream> {
    let mut strangers = Vec::new();
    for number in 1..=count {
        for _ in 0..20 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::new(127, 0, 1, number), 0).into()).unwrap();
            strangers.push(socket.connect(address).await.unwrap());
        }
    }
    strangers
}

/// Connects to the port for forwarded requests as another gateway.
async fn connect(gateway: &ProcessGateway) -> std::io::Result<TlsStream<TcpStream>> {
    let config = client_config(gateway.pki.gateway.clone(), GATEWAY_URI).unwrap();
    TlsConnector::from(config).connect(peer_name(), TcpStream::connect(gateway.peer_address).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_either_port_do_not_keep_gateways_out() {
    let pair = small_pair().await;
    let home = &pair.home;
    let refused = |cause: &str| format!("mcp_pod_connections_refused_total{{cause=\"{cause}\"}}");
    // A third of 16 MiB at the port of agents, an eighth at that of gateways.
    let _at_agents = strangers(home.address, 10).await;
    until("strangers are refused", async || home.metric(&refused("strangers")).await > 0.0).await;
    let at_agents = home.metric(&refused("strangers")).await;
    let _at_peers = strangers(home.peer_address, 10).await;
    until("strangers are refused", async || home.metric(&refused("strangers")).await > at_agents).await;
    assert!(home.metric(&refused("handshakes")).await > 0.0, "one address may have all places");
    // Each request of these needs a connection of its own.
    home.shim
        .set_behaviour(Behaviour::Work("{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n".into()));
    let mut calls = JoinSet::new();
    for _ in 0..24 {
        let mut client = pair.edge.client(Token::default()).await;
        calls.spawn(async move { client.call("echo", json!({})).await });
    }
    eventually("all calls run", || home.shim.calls().len() == 24).await;
    home.shim.finish_work();
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap().json()["result"]["content"][0]["text"], "done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_gateways_make_room_for_others() {
    let pair = small_pair().await;
    let home = &pair.home;
    let mut idle = Vec::new();
    // More than 8 MiB, 48 KiB each.
    for _ in 0..175 {
        let mut stream = connect(home).await.unwrap();
        let request = "GET /none HTTP/1.1\r\nhost: gateway\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 421");
        idle.push(stream);
    }
    // The first ones were closed for the last ones.
    for stream in &mut idle[..4] {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let mut client = pair.edge.client(Token::default()).await;
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
    assert!(home.metric("mcp_pod_connections_refused_total{cause=\"peers\"}").await < 1.0);
}
