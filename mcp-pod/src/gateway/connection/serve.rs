//! HTTP/1.1 and HTTP/2 on one connection of an agent, with limits on everything that costs memory.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Client;
use super::peer::PeerPlace;
use crate::gateway::pipeline;
use crate::gateway::state::State;

/// Longest time that a head may take to arrive, and that a connection may be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest time until the first authenticated request of a connection.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the largest head of a request. A token has at most 4 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes of what another gateway adds to a head that it forwards.
const FORWARDED_HEAD: usize = 1024;
/// Bytes that HTTP/1.1 reads at a time: one TLS record.
const READ_BUFFER: usize = 16 * 1024;
/// Headers of one HTTP/1.1 request.
const MAX_HEADERS: usize = 64;
/// Concurrent requests on one HTTP/2 connection: the smallest number that RFC 9113 recommends (6.5.2).
const MAX_STREAMS: u32 = 100;
/// Bytes that an HTTP/2 client may send on one stream before the gateway has read them.
const STREAM_WINDOW: u32 = 32 * 1024;
/// The same on all streams together: the smallest window that the protocol allows (RFC 9113, 6.9.2).
const CONNECTION_WINDOW: u32 = 65_535;
/// Bytes of the table that compresses the heads of an HTTP/2 connection.
const HEADER_TABLE: u32 = 4096;
/// Bytes of answers that HTTP/2 takes for one stream before the client has read them.
const SEND_BUFFER: usize = 64 * 1024;
/// How often a silent HTTP/2 connection is pinged, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Serves HTTP/1.1 on a stream until it ends.
pub(super) async fn serve_connection<S>(stream: S, client: Arc<Client>, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let driven = Arc::clone(&client);
    let closing = client.as_peer().map_or_else(|| state.closing(), PeerPlace::closing);
    let max_head = if client.as_peer().is_some() { MAX_HEAD + FORWARDED_HEAD } else { MAX_HEAD };
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, client) = (Arc::clone(&state), Arc::clone(&client));
        async move { Ok::<_, Infallible>(pipeline::answer(state, client, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .max_header_size(max_head)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    drive(connection, http1::Connection::graceful_shutdown, &driven, closing).await;
}

/// Serves HTTP/2 on a stream until it ends.
pub(super) async fn serve_h2<S>(stream: S, client: Arc<Client>, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let driven = Arc::clone(&client);
    let closing = state.closing();
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, client) = (Arc::clone(&state), Arc::clone(&client));
        async move { Ok::<_, Infallible>(pipeline::answer(state, client, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    drive(connection, http2::Connection::graceful_shutdown, &driven, closing).await;
}

/// Drives a connection until it ends, the gateway closes, or it turns out that the client does not use it.
async fn drive<C>(connection: C, shut_down: fn(Pin<&mut C>), client: &Client, closing: CancellationToken)
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            shut_down(connection.as_mut());
            connection.await
        }
        () = unused(client) => {
            debug!(client = %client.address, "closed a connection without an authenticated request");
            return;
        }
    };
    if let Err(error) = ended {
        debug!(%error, client = %client.address, "a connection ended early");
    }
}

/// Waits until the time for the first authenticated request is over; forever if there was one.
async fn unused(client: &Client) {
    tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
    if client.is_authenticated() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;
    use std::time::Instant as StdInstant;

    use mcp_fleet_policy::units::Bytes as Size;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;
    use crate::gateway::Dialer;
    use crate::gateway::audit::Audit;
    use crate::gateway::budget::Leases;
    use crate::gateway::connection::places::Places;
    use crate::gateway::memory::Memory;
    use crate::tls::PublicNames;

    /// Returns the client's end of a connection, and the gateway's view of the client.
    fn connect() -> (tokio::io::DuplexStream, Arc<Client>, Memory) {
        let memory = Memory::new(Size::new(64 << 20));
        let audit = Audit::start(std::io::sink(), Duration::ZERO).unwrap();
        let names = PublicNames::new(Path::new("/nonexistent"));
        let state = State::new(Leases::new(Duration::ZERO), Dialer::Plain, audit, memory.clone(), names).unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client = Places::new(memory.clone()).accept(address, StdInstant::now()).unwrap();
        let (remote, gateway) = tokio::io::duplex(4096);
        tokio::spawn(serve_connection(gateway, Arc::clone(&client), state));
        (remote, client, memory)
    }

    /// Returns how long the gateway keeps the connection open, in seconds.
    async fn closed_after(remote: &mut tokio::io::DuplexStream) -> u64 {
        let start = Instant::now();
        let _ = remote.read_to_end(&mut Vec::new()).await;
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_an_authenticated_request_ends_soon() {
        let (mut remote, _, memory) = connect();
        assert_eq!(closed_after(&mut remote).await, 30, "idle");
        tokio::task::yield_now().await;
        assert_eq!(memory.connections.used(), 0, "its memory is still reserved");
        let (mut remote, ..) = connect();
        remote.write_all(b"POST /files/mcp HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        assert_eq!(closed_after(&mut remote).await, 30, "with an unfinished head");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_an_authenticated_request_may_be_idle() {
        let (mut remote, client, memory) = connect();
        client.note_authenticated(&memory.of_principal().connections).unwrap();
        assert_eq!(closed_after(&mut remote).await, 75);
    }
}
