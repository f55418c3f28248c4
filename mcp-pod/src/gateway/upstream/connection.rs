//! One HTTP/1.1 connection to a shim.
//!
//! A connection has no task of its own: the task that waits for an answer also drives the connection. So a call costs
//! no wake-ups between tasks, and dropping the call closes the connection, which tells the shim to cancel it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection as Driver, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::UpstreamError;
use crate::tls::peer_name;

/// Longest time for the TCP connection and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A TCP or TLS stream. Boxed, so that the pool is not generic.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver<TokioIo<Box<dyn Stream>>, Full<Bytes>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects, within [`CONNECT_TIMEOUT`].
    pub(super) async fn open(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Self, UpstreamError> {
        let connect = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match tls {
                Some(config) => Box::new(TlsConnector::from(config).connect(peer_name(), tcp).await?),
                None => Box::new(tcp),
            };
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (sender, driver) = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(UpstreamError::Connect)?;
        Ok(Self { sender, driver })
    }

    /// Returns whether the connection is open and can send a request now.
    pub(super) async fn is_usable(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            let open = std::pin::Pin::new(&mut self.driver).poll(cx).is_pending();
            Poll::Ready(open && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Sends the request and waits for the head of the answer. An error returns the request if no byte of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (UpstreamError, Option<Request<Full<Bytes>>>)> {
        let answer = self.sender.try_send_request(request);
        match drive(&mut self.driver, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                Err((UpstreamError::Broken(error.into_error()), unsent))
            }
            Err(error) => Err((error, None)),
        }
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
        let progress = std::pin::Pin::new(&mut *driver).poll(cx);
        // Driving may have completed the answer: polling again now saves a round through the scheduler.
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        match progress {
            Poll::Ready(Err(error)) => Poll::Ready(Err(UpstreamError::Broken(error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(UpstreamError::Malformed("the connection ended before the answer"))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
