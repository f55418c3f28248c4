//! Memory: clients that make the gateway hold something for them are refused when their share is used up. The process
//! stays within its budget, and other clients are served.

use std::convert::Infallible;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::units::Bytes as Size;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Behaviour, Client, OTHER, Options, PATIENCE, ProcessGateway, TestGateway, Token, eventually, modern, tls_from,
    until,
};

/// Budget of the gateways in these tests.
const BUDGET: &str = "48Mi";
/// Memory limit of a container whose gateway has this budget by default.
const MAX_RESIDENT: usize = 96 << 20;
/// Addresses from which a flood comes.
const ADDRESSES: u8 = 40;
/// Connections that a flood tries to open from each address.
const PER_ADDRESS: usize = 20;

/// What became of the connections of a flood.
#[derive(Debug, Default)]
struct Flood {
    opened: AtomicUsize,
    refused: AtomicUsize,
}

/// Starts a gateway in which the second principal has the grants of the first.
async fn start() -> ProcessGateway {
    let options = Options { arguments: &["--memory-budget", BUDGET], log_level: "warn", ..Options::default() };
    ProcessGateway::start(&options, |policy: &mut TenantPolicy| {
        policy.principals[1].grants = policy.principals[0].grants.clone();
        policy.servers[0].limits.max_concurrent_calls = 1000;
        policy.servers[0].limits.max_response = Size::new(64 << 20);
    })
    .await
}

/// Connects the second principal, from an address that no flood comes from.
async fn bystander(gateway: &ProcessGateway) -> Client {
    gateway.client(Token { principal: OTHER, ..Token::default() }).await
}

/// Returns the head of a request with a call, and its body.
fn call(token: &str, arguments: &Value, length: usize) -> (String, String) {
    let (mut body, headers) = modern("tools/call", json!({"name": "echo", "arguments": arguments}));
    // White space after the message is part of the body.
    body += &" ".repeat(length.saturating_sub(body.len()));
    let mut head = format!(
        "POST /files/mcp HTTP/1.1\r\nhost: gateway.acme-mcp.svc\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.extend([name, ": ", value.as_str(), "\r\n"]);
    }
    (head + "\r\n", body)
}

/// Opens HTTP/1.1 connections from many addresses, and does `attack` on each, which returns whether the gateway refused the
/// client. Keeps the connections open.
async fn flood<F, T>(gateway: &ProcessGateway, attack: impl Fn(TlsStream<TcpStream>) -> F) -> Arc<Flood>
where
    F: Future<Output = (bool, T)> + Send + 'static,
    T: Send + 'static,
{
    flood_offering(gateway, b"http/1.1", attack).await
}

async fn flood_offering<F, T>(
    gateway: &ProcessGateway,
    protocol: &[u8],
    attack: impl Fn(TlsStream<TcpStream>) -> F,
) -> Arc<Flood>
where
    F: Future<Output = (bool, T)> + Send + 'static,
    T: Send + 'static,
{
    let flood = Arc::<Flood>::default();
    let protocols = [protocol];
    let connections = (0..PER_ADDRESS).flat_map(|_| 1..=ADDRESSES).map(|number| {
        let source = Ipv4Addr::new(127, 0, 1, number);
        tls_from(source, gateway.address, &gateway.pki, &protocols)
    });
    let mut connections = futures::stream::iter(connections).buffer_unordered(16);
    while let Some(connection) = connections.next().await {
        let Ok(connection) = connection else {
            flood.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        flood.opened.fetch_add(1, Ordering::Relaxed);
        let (attack, flood) = (attack(connection), Arc::clone(&flood));
        tokio::spawn(async move {
            let (refused, _open) = attack.await;
            flood.refused.fetch_add(usize::from(refused), Ordering::Relaxed);
            std::future::pending::<()>().await;
        });
    }
    flood
}

/// Makes calls of a bystander during a flood, and checks that the gateway stays within its budget.
async fn survives(gateway: &mut ProcessGateway, bystander: &mut Client, flood: &Flood) {
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(gateway.is_running(), "the gateway has ended");
        let called = tokio::time::timeout(PATIENCE, bystander.call("echo", json!({}))).await;
        let answer = called.expect("the call of another principal has no answer");
        assert_eq!(answer.json()["result"]["content"][0]["text"], "done", "{answer:?}");
    }
    // A known address gets a new connection, and a large request has room.
    let mut another = self::bystander(gateway).await;
    let answer = another.call("echo", json!({"text": "x".repeat(64 * 1024)})).await;
    assert_eq!(answer.json()["result"]["content"][0]["text"], "done", "{answer:?}");
    let peak = gateway.peak_memory();
    println!("{flood:?}, peak {} MiB", peak >> 20);
    assert!(peak < MAX_RESIDENT, "the gateway used {} MiB", peak >> 20);
    eventually("the flood is refused", || flood.refused.load(Ordering::Relaxed) > 100).await;
}

/// Reads until the gateway closes the connection. Returns whether it has answered with 429 or 503, or nothing.
async fn is_refused(mut stream: TlsStream<TcpStream>) -> (bool, TlsStream<TcpStream>) {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let status = answer.get(9..12).unwrap_or_default();
    (status.is_empty() || status == b"429" || status == b"503", stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_lack_their_last_byte_do_not_use_up_memory() {
    let mut gateway = start().await;
    let mut other = bystander(&gateway).await;
    assert_eq!(other.call("echo", json!({})).await.status, 200);
    let (head, mut body) = call(&gateway.pki.token(Token::default()), &json!({}), 256 * 1024);
    body.pop();
    let request: Arc<str> = (head + &body).into();
    let flood = flood(&gateway, |mut stream| {
        let request = Arc::clone(&request);
        async move {
            let _ = stream.write_all(request.as_bytes()).await;
            is_refused(stream).await
        }
    })
    .await;
    survives(&mut gateway, &mut other, &flood).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_an_end_do_not_use_up_memory() {
    let mut gateway = start().await;
    let mut other = bystander(&gateway).await;
    assert_eq!(other.call("echo", json!({})).await.status, 200);
    let flood = flood(&gateway, |mut stream| async move {
        let header = format!("x: {}\r\n", "y".repeat(1000));
        let _ = stream.write_all(b"POST /files/mcp HTTP/1.1\r\nhost: a\r\n").await;
        for _ in 0..60 {
            if stream.write_all(header.as_bytes()).await.is_err() {
                return (true, stream);
            }
        }
        let mut answer = [0; 12];
        (stream.read_exact(&mut answer).await.is_err() || answer.ends_with(b"431"), stream)
    })
    .await;
    survives(&mut gateway, &mut other, &flood).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_do_not_use_up_memory() {
    let mut gateway = start().await;
    let mut other = bystander(&gateway).await;
    assert_eq!(other.call("echo", json!({})).await.status, 200);
    gateway.shim.answer(&format!("{{\"result\":{{\"a\":\"{}\"}}}}\n", "x".repeat(6 << 20)));
    let (head, body) = call(&gateway.pki.token(Token::default()), &json!({}), 0);
    let request: Arc<str> = (head + &body).into();
    let flood = flood(&gateway, |mut stream| {
        let request = Arc::clone(&request);
        async move {
            let _ = stream.write_all(request.as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut status = [0; 12];
            let read = stream.read_exact(&mut status).await;
            (read.is_err() || status.ends_with(b"429") || status.ends_with(b"503"), stream)
        }
    })
    .await;
    eventually("the flood is refused", || flood.refused.load(Ordering::Relaxed) > 100).await;
    gateway.shim.answer("{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n");
    survives(&mut gateway, &mut other, &flood).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_lack_their_end_do_not_use_up_memory() {
    let mut gateway = start().await;
    let mut other = bystander(&gateway).await;
    assert_eq!(other.call("echo", json!({})).await.status, 200);
    let token: Arc<str> = gateway.pki.token(Token::default()).into();
    let flood = flood_offering(&gateway, b"h2", |stream| {
        let token = Arc::clone(&token);
        async move {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let Ok((sender, connection)) = handshake else { return (true, vec![]) };
            tokio::spawn(connection);
            // The body never ends.
            let body = || {
                let chunks = (0..12).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; 16 * 1024]))));
                StreamBody::new(futures::stream::iter(chunks).chain(futures::stream::pending()))
            };
            let request = || {
                Request::post("https://gateway.acme-mcp.svc/files/mcp")
                    .header("content-type", "application/json")
                    .header("authorization", format!("Bearer {token}"))
                    .body(body())
                    .unwrap()
            };
            let answers: Vec<_> = (0..100).map(|_| tokio::spawn(sender.clone().send_request(request()))).collect();
            tokio::time::sleep(Duration::from_secs(3)).await;
            let refused = answers.iter().any(JoinHandle::is_finished);
            (refused, answers)
        }
    })
    .await;
    eventually("the flood is refused", || flood.refused.load(Ordering::Relaxed) > 100).await;
    survives(&mut gateway, &mut other, &flood).await;
}

#[tokio::test]
async fn many_values_need_more_memory_than_one_long_text() {
    let gateway = TestGateway::with_memory(BUDGET.parse().unwrap()).await;
    let mut client = gateway.client().await;
    let text = client.call("echo", json!({"text": "x".repeat(64 * 1024)})).await;
    assert_eq!(text.json()["result"]["content"][0]["text"], "done", "{text:?}");
    // Two bytes for each value: the text that takes most memory for its length when it is parsed.
    let nested = format!("{}{}", "[".repeat(25), "]".repeat(25));
    let values: Value = serde_json::from_str(&format!("[{}0]", (nested + ",").repeat(1200))).unwrap();
    let answer = client.call("echo", json!({"text": values})).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["error"]["data"]["reason"], "concurrency_limited");
    assert_eq!(answer.headers["retry-after"], "1");
    // What was reserved is free again.
    let few: Value = serde_json::from_str(&format!("[{}0]", "[[[[1]]]],".repeat(100))).unwrap();
    assert_eq!(client.call("echo", json!({"text": few})).await.denial().0, "argument_type");
    assert_eq!(client.call("echo", json!({})).await.json()["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn an_answer_that_is_too_large_for_the_budget_is_withheld() {
    let gateway = TestGateway::with_memory(BUDGET.parse().unwrap()).await;
    gateway.change_policy(|policy| policy.servers[0].limits.max_response = Size::new(64 << 20));
    let mut client = gateway.client().await;
    let result = |length: usize| format!("{{\"result\":{{\"a\":\"{}\"}}}}\n", "x".repeat(length));
    // Whether the shim declares the length or not.
    for behaviour in [
        |answer: String| Behaviour::Answer(answer.into()),
        |answer: String| Behaviour::Slow(vec![answer.into()], Duration::ZERO),
    ] {
        gateway.shim.set_behaviour(behaviour(result(7 << 20)));
        let answer = client.call("echo", json!({})).await;
        assert_eq!(answer.json()["result"]["a"].as_str().map(str::len), Some(7 << 20));
        gateway.shim.set_behaviour(behaviour(result(9 << 20)));
        assert_eq!(client.call("echo", json!({})).await.denial().0, "response_too_large");
    }
    assert!(gateway.metrics().contains("mcp_pod_memory_limit_bytes{use=\"requests\"} 33554432\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_strangers_do_not_keep_known_clients_out() {
    let mut gateway = start().await;
    let mut other = bystander(&gateway).await;
    assert_eq!(other.call("echo", json!({})).await.status, 200);
    let flood = flood(&gateway, |stream| async move { (false, stream) }).await;
    survives(&mut gateway, &mut other, &flood).await;
    let strangers = "mcp_pod_connections_refused_total{cause=\"strangers\"}";
    until("strangers are refused", async || gateway.metric(strangers).await > 100.0).await;
}
