//! The connection to a server that serves MCP over HTTP, on a port of the loopback interface.
//!
//! - [`streamable`]: Streamable HTTP (MCP 2025-03-26 and later); [`sse`]: HTTP with SSE (MCP 2024-11-05).
//! - [`exchange`]: one HTTP request and its response; [`events`]: event streams.
//!
//! Both take the same lines off the queue that a server on pipes gets, and dispatch the messages of the server like its lines.

mod events;
mod exchange;
mod sse;
mod streamable;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::uri::{Authority, PathAndQuery};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::rpc::{Outgoing, Phase, RpcClient};

/// How often a server that does not listen yet is tried.
const TRY_INTERVAL: Duration = Duration::from_millis(50);
/// How long one try to connect may take. What listens on the loopback interface accepts at once, unless its queue is full.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept. Less than any usual server does, so that no call is sent on one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_IDLE_CONNECTIONS: usize = 32;
/// Most bytes that are buffered of a connection, which is more than the head of a response needs.
const MAX_BUFFER: usize = 64 << 10;

/// How long a server may take to accept a message that it does not answer, or to begin a session again.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a server serves MCP.
#[derive(Clone, Debug)]
pub(in crate::shim) struct Endpoint {
    pub(in crate::shim) port: u16,
    pub(in crate::shim) path: PathAndQuery,
    pub(in crate::shim) transport: HttpTransport,
}

/// A transport of MCP over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::shim) enum HttpTransport {
    /// Streamable HTTP (MCP 2025-03-26 and later).
    #[default]
    StreamableHttp,
    /// HTTP with SSE (MCP 2024-11-05).
    Sse,
}

/// Why the connection to a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpEnd {
    /// The client was closed.
    #[error("it was stopped")]
    Stopped,
    #[error("it does not listen on its port any more")]
    NotListening,
    /// With HTTP with SSE, a session ends with its stream.
    #[error("it ended its event stream")]
    StreamEnded,
    #[error("it answered the request for its event stream with HTTP status {0}")]
    NoStream(StatusCode),
    #[error("its event stream does not begin with the path for messages, on the same server")]
    NoMessagePath,
    #[error("it wrote an event without an end")]
    Endless,
}

/// A server, and how it is reached.
#[derive(Debug)]
struct Server {
    rpc: Arc<RpcClient>,
    http: Client<HttpConnector, Full<Bytes>>,
    authority: Authority,
    path: PathAndQuery,
}

/// Connects to a server when it listens, and exchanges messages with it until the client is closed.
pub(super) async fn run(rpc: Arc<RpcClient>, endpoint: Endpoint, queue: mpsc::Receiver<Outgoing>) -> HttpEnd {
    rpc.set_phase(Phase::Connecting);
    let address = tokio::select! {
        biased;
        () = rpc.closed() => return HttpEnd::Stopped,
        address = listening(&endpoint) => address,
    };
    rpc.set_phase(Phase::Initializing);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .http1_max_buf_size(MAX_BUFFER)
        .build(connector);
    let Endpoint { path, transport, .. } = endpoint;
    // An address with a port always is an authority.
    let Ok(authority) = address.to_string().parse() else { return HttpEnd::NotListening };
    let server = Arc::new(Server { rpc, http, authority, path });
    match transport {
        HttpTransport::StreamableHttp => streamable::run(server, queue).await,
        HttpTransport::Sse => sse::run(server, queue).await,
    }
}

/// Returns the next line to send, or why the connection ends: the client was closed, or one of its tasks has ended it.
async fn next(
    rpc: &RpcClient,
    tasks: &mut JoinSet<Option<HttpEnd>>,
    queue: &mut mpsc::Receiver<Outgoing>,
) -> Result<Outgoing, HttpEnd> {
    loop {
        tokio::select! {
            biased;
            () = rpc.closed() => return Err(HttpEnd::Stopped),
            Some(ended) = tasks.join_next() => {
                if let Ok(Some(end)) = ended {
                    return Err(end);
                }
            }
            outgoing = queue.recv() => return outgoing.ok_or(HttpEnd::Stopped),
        }
    }
}

/// Waits until a server listens, and returns where.
async fn listening(endpoint: &Endpoint) -> SocketAddr {
    loop {
        if let Some(address) = address(endpoint).await {
            return address;
        }
        sleep(TRY_INTERVAL).await;
    }
}

/// Returns the address at which something listens on the port of a server.
pub(super) async fn address(endpoint: &Endpoint) -> Option<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, endpoint.port));
    let stream = timeout(TRY_TIMEOUT, TcpStream::connect(address)).await.ok()?.ok()?;
    // While nothing listens, a socket that happens to get this port connects to itself.
    (stream.local_addr().ok()? != address).then_some(address)
}
