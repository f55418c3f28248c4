//! An MCP client on one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::message;
use crate::setup::NAME;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const REVISION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// A server to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Address of the server.
    pub(crate) address: SocketAddr,
    /// TLS configuration; `None` for no TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Bearer token. The tool server and the proxy get one too, so that every path gets the same bytes.
    pub(crate) token: String,
}

/// A connection, and the headers that it sends with each call.
#[derive(Debug)]
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    headers: HeaderMap,
}

impl Client {
    /// Connects to `target`, without a session until [`Self::open_session`] or [`Self::set_session`].
    pub(crate) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.address).await.context("failed to connect")?;
        tcp.set_nodelay(true)?;
        let sender = match &target.tls {
            Some(tls) => {
                let stream = TlsConnector::from(tls.clone()).connect(NAME.try_into()?, tcp).await?;
                spawn(handshake(TokioIo::new(stream)).await?)
            }
            None => spawn(handshake(TokioIo::new(tcp)).await?),
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(NAME));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(REVISION, HeaderValue::from_static("2025-11-25"));
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {}", target.token))?);
        Ok(Self { sender, headers })
    }

    /// Opens an MCP session, and makes the following calls in it.
    pub(crate) async fn open_session(&mut self) -> anyhow::Result<()> {
        self.headers.remove(SESSION);
        let response = self.send(Bytes::from(message::initialize())).await?;
        let session = response.headers().get(SESSION).cloned();
        let (status, body) = read_body(response).await?;
        let Some(session) = session else {
            bail!("initialize returned no session: {status} {}", String::from_utf8_lossy(&body))
        };
        self.set_session(session);
        let response = self.send(Bytes::from(message::initialized())).await?;
        let (status, body) = read_body(response).await?;
        if status != StatusCode::ACCEPTED {
            bail!("notifications/initialized was not accepted: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(())
    }

    /// Returns the ID of the current session.
    pub(crate) fn session(&self) -> Option<HeaderValue> {
        self.headers.get(SESSION).cloned()
    }

    /// Makes the following calls in a session that was opened elsewhere.
    pub(crate) fn set_session(&mut self, session: HeaderValue) {
        self.headers.insert(SESSION, session);
    }

    /// Makes one call and returns the body of the answer. Fails if the call was refused.
    pub(crate) async fn call(&mut self, body: Bytes) -> anyhow::Result<Bytes> {
        let response = self.send(body).await?;
        let (status, body) = read_body(response).await?;
        // A refusal is short, so longer bodies need not be searched for one.
        let has = |text: &[u8]| body.windows(text.len()).any(|part| part == text);
        let is_refused = body.len() < 1024 && (has(b"\"isError\":true") || has(b"\"error\":{\"code\""));
        if status != StatusCode::OK || is_refused {
            bail!("a call failed: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Makes the following calls as a client that takes answers in JSON only.
    pub(crate) fn take_no_events(&mut self) {
        self.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    }

    /// Makes a call and reads what comes of its answer, until it ends.
    pub(crate) async fn wait(&mut self, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let response = self.send(body).await?;
        read_body(response).await
    }

    async fn send(&mut self, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(message::PATH);
        *request.headers_mut() = self.headers.clone();
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// Reads the whole body of a response.
async fn read_body(response: Response<Incoming>) -> anyhow::Result<(StatusCode, Bytes)> {
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

type Driver<T> = hyper::client::conn::http1::Connection<TokioIo<T>, Full<Bytes>>;

fn spawn<T>((sender, driver): (SendRequest<Full<Bytes>>, Driver<T>)) -> SendRequest<Full<Bytes>>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    tokio::spawn(async move { drop(driver.await) });
    sender
}
