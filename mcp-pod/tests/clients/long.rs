//! Calls of ten minutes: past the limits on silence of clients, and past those of a load balancer, which is a real HAProxy.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use super::support::{Client, FreeAddress, ProcessGateway, Token};
use super::{LEGACY, MODERN, Running, STEP_TIMEOUT, start};

/// Seconds that a call takes: longer than the timeouts of Node's fetch, and than those of most load balancers.
const LONG_CALL: u64 = 600;
/// Seconds of silence after which the load balancer cuts a connection: longer than the pause between two comments, and shorter
/// than that between two pings of HTTP/2.
const CUT_AFTER: u64 = 20;

/// A load balancer in front of a gateway, on loopback. It is killed on drop.
struct LoadBalancer {
    process: Child,
    /// Passes connections on as they are.
    tcp: FreeAddress,
    /// Ends TLS, and speaks HTTP with both sides.
    http: FreeAddress,
    _folder: tempfile::TempDir,
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl LoadBalancer {
    async fn start(gateway: &ProcessGateway) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [tcp, http] = [FreeAddress::new(), FreeAddress::new()];
        let identity = gateway.pki.gateway_dir();
        let read = |file: &str| fs::read_to_string(identity.join(file)).unwrap();
        let (certificate, configuration) = (folder.path().join("certificate.pem"), folder.path().join("haproxy.cfg"));
        fs::write(&certificate, read("tls.crt") + &read("tls.key")).unwrap();
        let mut text = String::new();
        write!(
            text,
            "defaults\n  timeout connect 5s\n  timeout client {CUT_AFTER}s\n  timeout server {CUT_AFTER}s\n\
             listen tcp\n  mode tcp\n  bind {}\n  server gateway {gateway}\n\
             listen http\n  mode http\n  bind {} ssl crt {} alpn h2,http/1.1\n  \
             server gateway {gateway} ssl verify required ca-file {} verifyhost localhost alpn h2,http/1.1\n",
            tcp.get(),
            http.get(),
            certificate.display(),
            identity.join("ca.crt").display(),
            gateway = gateway.address,
        )
        .unwrap();
        fs::write(&configuration, text).unwrap();
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(&configuration).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let process = haproxy.stdin(Stdio::null()).spawn().expect("HAProxy does not start");
        let balancer = Self { process, tcp, http, _folder: folder };
        for address in [&balancer.tcp, &balancer.http] {
            super::support::until("HAProxy listens", async || {
                tokio::net::TcpStream::connect(address.get()).await.is_ok()
            })
            .await;
        }
        balancer
    }
}

/// Lets a client make one long call to an address, of which there is progress once if it asks for that, and silence afterwards.
async fn call(
    gateway: &ProcessGateway,
    client: &str,
    more: &[(&str, &str)],
    address: SocketAddr,
    asks_for_progress: bool,
) {
    let seconds = LONG_CALL.to_string();
    let mut more = [more, &[("MCP_LONG", &seconds)]].concat();
    if asks_for_progress {
        more.push(("MCP_LONG_PROGRESS", "1"));
    }
    // The Rust SDK always asks for it.
    let progress = u64::from(asks_for_progress || client == "RUST");
    let mut running = Running::start_at(gateway, address, client, &more);
    running.step("connect", STEP_TIMEOUT).await;
    let facts = running.step("long", Duration::from_secs(LONG_CALL) + STEP_TIMEOUT).await;
    let done = (&facts["isError"], &facts["text"], &facts["seen"]);
    assert_eq!(done, (&json!(false), &json!("done"), &json!(progress)), "{client} {more:?} {address}");
}

/// Lets a client make long calls directly and through each kind of load balancer.
async fn survives(client: &str, more: &[(&str, &str)]) {
    let (gateway, _server) = start().await;
    let balancer = LoadBalancer::start(&gateway).await;
    tokio::join!(
        call(&gateway, client, more, gateway.address, false),
        call(&gateway, client, more, balancer.tcp.get(), false),
        call(&gateway, client, more, balancer.http.get(), false),
        call(&gateway, client, more, balancer.http.get(), true),
    );
}

/// A client that takes no events is silent until the end, so the load balancers cut it off. Without this, the other test
/// would not show that they do.
async fn is_cut_off() {
    let (gateway, _server) = start().await;
    let balancer = LoadBalancer::start(&gateway).await;
    let token = gateway.pki.token(Token::default());
    let (body, mut headers) =
        super::support::modern("tools/call", json!({"name": "slow", "arguments": {"seconds": 120}}));
    headers.push(("accept", "application/json".to_owned()));
    for (address, is_http) in [(balancer.tcp.get(), false), (balancer.http.get(), true)] {
        let mut client = Client::connect(address, &gateway.pki, Some(&token)).await;
        match client.try_send(&headers, body.clone()).await {
            Ok(answer) => assert!(is_http && answer.status == 504, "{answer:?}"),
            Err(error) => assert!(!is_http, "{error}"),
        }
    }
}

#[tokio::test]
#[ignore = "takes over ten minutes: `cargo xtask test long-calls`"]
async fn calls_of_ten_minutes_survive() {
    let clients: [(&str, &[(&str, &str)]); 10] = [
        ("PYTHON_1", &[]),
        ("PYTHON_2", &[LEGACY]),
        ("PYTHON_2", &[MODERN]),
        ("NODE", &[("MCP_SDK", "1")]),
        ("NODE", &[("MCP_SDK", "2"), LEGACY]),
        ("NODE", &[("MCP_SDK", "2"), MODERN]),
        ("GO", &[LEGACY]),
        ("GO", &[MODERN]),
        ("RUST", &[LEGACY]),
        ("RUST", &[MODERN]),
    ];
    let all = join_all(clients.map(|(client, more)| survives(client, more)));
    tokio::join!(all, is_cut_off());
}
