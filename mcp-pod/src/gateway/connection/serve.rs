//! HTTP/1.1 and HTTP/2 on one connection of an agent, with limits on everything that costs memory.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::gateway::pipeline;
use crate::gateway::state::State;

/// Longest time that a head may take to arrive, and that a connection may be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Bytes of the largest head of an HTTP/2 request.
const MAX_H2_HEAD: usize = 32 * 1024;
/// Bytes that HTTP/1.1 reads at a time: enough for a typical request, so that its body arrives as one chunk. A longer
/// head is rejected.
const READ_BUFFER: usize = 64 * 1024;
/// Headers of one HTTP/1.1 request.
const MAX_HEADERS: usize = 64;
/// Concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Bytes that an HTTP/2 client may send on one stream before the gateway has read them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How often a silent HTTP/2 connection is pinged, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Serves HTTP/1.1 on a stream until it ends.
pub(super) async fn serve_connection<S>(stream: S, peer: IpAddr, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = state.closing();
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(pipeline::answer(state, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection ended early");
    }
}

/// Serves HTTP/2 on a stream until it ends.
pub(crate) async fn serve_h2<S>(stream: S, peer: IpAddr, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = state.closing();
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(pipeline::answer(state, peer, request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_H2_HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .max_send_buf_size(MAX_H2_HEAD * 2)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection ended early");
    }
}
