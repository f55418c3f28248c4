//! One HTTP/1.1 connection to a shim.
//!
//! It has no task of its own: whoever waits for an answer drives the connection with the same task, so that a call
//! costs no wake-ups between tasks, and dropping the call drops the connection, which is how a shim hears of a
//! cancellation.

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

/// How long connecting and the TLS handshake may take together.
const CONNECT: Duration = Duration::from_secs(3);

/// Either kind of stream, behind one pointer so that the pool is not generic.
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
    /// Connects, within [`CONNECT`].
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
        let (sender, driver) = tokio::time::timeout(CONNECT, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(UpstreamError::Connect)?;
        Ok(Self { sender, driver })
    }

    /// Whether the connection can take a request now; notices that the other side has closed it.
    pub(super) async fn usable(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            let open = std::pin::Pin::new(&mut self.driver).poll(cx).is_pending();
            Poll::Ready(open && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Sends the request and waits for the head of the answer. The request comes back if nothing of it was sent.
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

    /// The next piece of the answer's body.
    pub(super) async fn data(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, UpstreamError> {
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

/// Waits for `answer`, and drives the connection meanwhile.
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
        // Driving may have brought the answer; asking now saves the round through the scheduler.
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        match progress {
            Poll::Ready(Err(error)) => Poll::Ready(Err(UpstreamError::Broken(error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(UpstreamError::Form("the connection ended before the answer"))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
