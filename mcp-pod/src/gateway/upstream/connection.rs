//! One HTTP/1.1 connection to a shim.
//!
//! A connection has no task of its own: the task that waits for an answer also drives the connection. So a call costs
//! no wake-ups between tasks, and dropping the call closes the connection, which tells the shim to cancel it.
//!
//! [`Connection::hand_over`] writes a request without waiting for anything, so that the caller can make sure of what has
//! to hold at that moment.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, Connection as Driver, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_rustls::TlsConnector;

use super::UpstreamError;
use crate::gateway::memory::{Account, Reservation};
use crate::tls::peer_name;

/// Bytes of one connection: TLS and HTTP state with their buffers.
const MEMORY: usize = 64 * 1024;
/// Bytes that are read at a time.
const READ_BUFFER: usize = 64 * 1024;
/// Bytes of the largest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// Longest time for the TCP connection and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A TCP or TLS stream. Boxed, so that the pool is not generic.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// The head of an answer, once it arrives.
pub(super) type Head =
    Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>>> + Send>>;

/// Why a request was not handed over.
#[derive(Debug)]
pub(super) enum HandOverError<E> {
    /// It may not be sent. The connection is unused.
    Refused(E),
    /// The connection ended, and no byte of the request was sent.
    Unsent(Box<Request<Full<Bytes>>>, UpstreamError),
    /// The connection ended, and the request may have been sent.
    Broken(UpstreamError),
}

/// An open connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver<TokioIo<Box<dyn Stream>>, Full<Bytes>>,
    _memory: Reservation,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects, within [`CONNECT_TIMEOUT`]. Counts the memory of the connection in the account, whether it has room or
    /// not: the limits on calls in flight bound the number of connections.
    pub(super) async fn open(
        address: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        account: &Arc<Account>,
    ) -> Result<Self, UpstreamError> {
        let memory = account.count(MEMORY);
        let connect = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match tls {
                Some(config) => Box::new(TlsConnector::from(config).connect(peer_name(), tcp).await?),
                None => Box::new(tcp),
            };
            let mut builder = http1::Builder::new();
            builder.max_buf_size(READ_BUFFER).max_header_size(MAX_HEAD);
            builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (sender, driver) = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(UpstreamError::Connect)?;
        Ok(Self { sender, driver, _memory: memory })
    }

    /// Returns whether the connection is open and can send a request now.
    pub(super) fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let open = Pin::new(&mut self.driver).poll(&mut cx).is_pending();
        open && matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Hands over a request, unless `hold` returns an error. What it returns otherwise is dropped when the request has
    /// been written, or as much of it as the socket takes at once.
    pub(super) fn hand_over<H, E>(
        &mut self,
        request: Request<Full<Bytes>>,
        hold: impl FnOnce() -> Result<H, E>,
    ) -> Result<Head, HandOverError<E>> {
        let _held = hold().map_err(HandOverError::Refused)?;
        // Waiting for the head polls both again, and registers a real waker.
        let mut cx = Context::from_waker(Waker::noop());
        let mut head: Head = Box::pin(self.sender.try_send_request(request));
        // Outside of tokio's budget, which could put the write off to a later poll.
        let write = pin!(unconstrained(std::future::poll_fn(|cx| Pin::new(&mut self.driver).poll(cx)))).poll(&mut cx);
        match (head.as_mut().poll(&mut cx), write) {
            (Poll::Ready(Ok(response)), _) => Ok(Box::pin(std::future::ready(Ok(response)))),
            (Poll::Ready(Err(mut error)), _) => {
                let unsent = error.take_message();
                let error = UpstreamError::Broken(error.into_error());
                Err(match unsent {
                    Some(unsent) => HandOverError::Unsent(Box::new(unsent), error),
                    None => HandOverError::Broken(error),
                })
            }
            (Poll::Pending, Poll::Pending) => Ok(head),
            (Poll::Pending, Poll::Ready(ended)) => Err(HandOverError::Broken(ended_early(ended))),
        }
    }

    /// Waits for the head of the answer to the request that was handed over.
    pub(super) async fn head(&mut self, head: &mut Head) -> Result<Response<Incoming>, UpstreamError> {
        drive(&mut self.driver, head).await?.map_err(|error| UpstreamError::Broken(error.into_error()))
    }

    /// Returns the next chunk of the answer's body, or `None` at its end.
    pub(super) async fn next_chunk(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            match drive(&mut self.driver, body.frame()).await? {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(UpstreamError::Broken(error)),
                None => return Ok(None),
            }
        }
    }
}

/// Waits for `answer` and drives the connection meanwhile.
async fn drive<F: Future>(
    driver: &mut Driver<TokioIo<Box<dyn Stream>>, Full<Bytes>>,
    answer: F,
) -> Result<F::Output, UpstreamError> {
    let mut answer = pin!(answer);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        let progress = Pin::new(&mut *driver).poll(cx);
        // Driving may have completed the answer: polling again now saves a round through the scheduler.
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        progress.map(|ended| Err(ended_early(ended)))
    })
    .await
}

fn ended_early(ended: hyper::Result<()>) -> UpstreamError {
    match ended {
        Err(error) => UpstreamError::Broken(error),
        Ok(()) => UpstreamError::Ended("the connection was closed before the answer"),
    }
}
