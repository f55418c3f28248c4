//! Connections that break in the middle of a call: official clients resume the event stream of its answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use mcp_pod::tls::server_config_plain;
use memchr::memmem::find;
use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::support::{Pki, tls};
use super::{LEGACY, Running, STEP_TIMEOUT, start};

/// A proxy in front of a gateway that ends TLS, speaks HTTP/1.1, and cuts the first connection on which it sees an event with an
/// id, right after it.
struct Cutter {
    address: SocketAddr,
    seen: Arc<Seen>,
    _connections: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    has_cut: AtomicBool,
    resumptions: AtomicUsize,
}

impl Cutter {
    async fn start(gateway: SocketAddr, pki: Arc<Pki>) -> Self {
        let mut config = ServerConfig::clone(&server_config_plain(Arc::clone(&pki.gateway)).unwrap());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
        let mut connections = JoinSet::new();
        let for_accepted = Arc::clone(&seen);
        connections.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, pki, seen) = (acceptor.clone(), Arc::clone(&pki), Arc::clone(&for_accepted));
                connections.spawn(async move { relay(stream, acceptor, gateway, &pki, &seen).await });
            }
        });
        Self { address, seen, _connections: connections }
    }
}

/// Relays a connection until a side ends it or it is cut.
async fn relay(stream: TcpStream, acceptor: TlsAcceptor, gateway: SocketAddr, pki: &Pki, seen: &Seen) {
    let Ok(client) = acceptor.accept(stream).await else { return };
    let (from_client, to_client) = split(client);
    let (from_gateway, to_gateway) = split(tls(gateway, pki).await);
    tokio::select! {
        () = copy(from_client, to_gateway, |text| {
            if find(&text.to_ascii_lowercase(), b"\r\nlast-event-id: ").is_some() {
                seen.resumptions.fetch_add(1, Ordering::Relaxed);
            }
            false
        }) => {}
        () = copy(from_gateway, to_client, |text| {
            let event = find(text, b"id: ").is_some_and(|start| find(&text[start..], b"\n\n").is_some());
            event && !seen.has_cut.swap(true, Ordering::Relaxed)
        }) => {}
    }
}

/// Copies until the end, or until `ends` returns true for the bytes that were just copied. The gateway writes an event at once, so
/// they have all of it.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut ends: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let text = &buffer[..length];
        if to.write_all(text).await.is_err() || to.flush().await.is_err() || ends(text) {
            return;
        }
    }
}

/// Lets a client make a call whose connection is cut.
async fn resumes(client: &str, more: &[(&str, &str)]) {
    let (gateway, _server) = start().await;
    let cutter = Cutter::start(gateway.address, Arc::clone(&gateway.pki)).await;
    // Longer than the gateway waits before it begins a stream.
    let more = [more, &[("MCP_LONG", "12")]].concat();
    let mut running = Running::start_at(&gateway, cutter.address, client, &more);
    running.step("connect", STEP_TIMEOUT).await;
    let facts = running.step("long", STEP_TIMEOUT).await;
    assert_eq!((&facts["isError"], &facts["text"]), (&json!(false), &json!("done")), "{client} {more:?}");
    assert!(cutter.seen.has_cut.load(Ordering::Relaxed), "{client}: no connection was cut");
    assert!(cutter.seen.resumptions.load(Ordering::Relaxed) > 0, "{client}: the stream was not resumed");
}

#[tokio::test]
async fn a_call_whose_connection_breaks_is_resumed() {
    let clients: [(&str, &[(&str, &str)]); 6] = [
        ("PYTHON_1", &[]),
        ("PYTHON_2", &[LEGACY]),
        ("NODE", &[("MCP_SDK", "1")]),
        ("NODE", &[("MCP_SDK", "2"), LEGACY]),
        ("GO", &[LEGACY]),
        ("RUST", &[LEGACY]),
    ];
    join_all(clients.map(|(client, more)| resumes(client, more))).await;
}
