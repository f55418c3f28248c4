//! Calls of which the gateway has everything but the last byte.

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::{TestGateway, eventually, modern, tls, tls_offering};

/// Calls on one HTTP/2 connection.
const STREAMS: usize = 100;

type Chunk = Result<Frame<Bytes>, std::convert::Infallible>;
type H2Answer = hyper::Result<(StatusCode, Bytes)>;

/// A call of which the gateway has everything but the last byte.
pub(crate) enum HeldCall {
    Http1(Box<TlsStream<TcpStream>>),
    Http2(mpsc::Sender<Chunk>, JoinHandle<H2Answer>),
}

/// Starts `count` calls of the tool `echo`, half of them over HTTP/2. Every second one is of 2025-11-25, the others are
/// of 2026-07-28. Returns when the gateway waits for the last byte of each.
pub(crate) async fn hold_calls(gateway: &TestGateway, token: &str, count: usize) -> Vec<HeldCall> {
    let mut client = gateway.client_with(token).await;
    client.initialize("2025-11-25").await;
    let session = client.session.clone().unwrap();
    let before = gateway.state.active();
    let mut held = Vec::with_capacity(count);
    // Handshakes take longer than a body may take to arrive.
    let http1 = futures::stream::iter(0..count / 2).map(|_| tls(gateway.address, &gateway.pki)).buffered(8);
    let mut http1: Vec<_> = http1.collect().await;
    let mut http2 = Vec::new();
    for _ in 0..count.div_ceil(STREAMS) {
        http2.push(connect(gateway).await);
    }
    for number in 0..count {
        let (body, headers) = if number % 2 == 0 {
            modern("tools/call", json!({"name": "echo", "arguments": {}}))
        } else {
            let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}});
            (call.to_string(), vec![("mcp-session-id", session.clone())])
        };
        held.push(match http1.pop() {
            Some(stream) => hold_http1(stream, token, &headers, &body).await,
            None => hold_http2(&http2[number / STREAMS], token, &headers, body).await,
        });
    }
    eventually("every call is held back", || gateway.state.active() == before + count).await;
    held
}

impl HeldCall {
    /// Sends the last byte. Returns status and message of the answer.
    pub(crate) async fn release(self) -> (StatusCode, Value) {
        let last = Bytes::from_static(b"}");
        let (status, body) = match self {
            Self::Http1(mut stream) => {
                stream.write_all(&last).await.unwrap();
                stream.flush().await.unwrap();
                let mut answer = Vec::new();
                // The gateway closes the connection without a TLS alert if the head of the request asks it to close.
                let _ = stream.read_to_end(&mut answer).await;
                let text = String::from_utf8(answer).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                (status, Bytes::from(body.to_owned()))
            }
            Self::Http2(mut body, answer) => {
                body.send(Ok(Frame::data(last))).await.unwrap();
                drop(body);
                answer.await.unwrap().unwrap()
            }
        };
        (status, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }
}

async fn hold_http1(
    mut stream: TlsStream<TcpStream>,
    token: &str,
    headers: &[(&'static str, String)],
    body: &str,
) -> HeldCall {
    let mut request = format!(
        "POST /files/mcp HTTP/1.1\r\nhost: gateway.acme-mcp.svc\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.extend([name, ": ", value.as_str(), "\r\n"]);
    }
    request += "\r\n";
    request += body.strip_suffix('}').unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    HeldCall::Http1(Box::new(stream))
}

type H2Body = StreamBody<mpsc::Receiver<Chunk>>;

async fn connect(gateway: &TestGateway) -> SendRequest<H2Body> {
    let stream = tls_offering(gateway.address, &gateway.pki, &[b"h2"]).await;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn hold_http2(
    sender: &SendRequest<H2Body>,
    token: &str,
    headers: &[(&'static str, String)],
    body: String,
) -> HeldCall {
    let (mut chunks, receiver) = mpsc::channel(2);
    let mut request = Request::post("https://gateway.acme-mcp.svc/files/mcp")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let most = body.strip_suffix('}').unwrap().to_owned();
    chunks.send(Ok(Frame::data(Bytes::from(most)))).await.unwrap();
    let answer = sender.clone().send_request(request.body(StreamBody::new(receiver)).unwrap());
    let answer = tokio::spawn(async move {
        let (head, body) = answer.await?.into_parts();
        Ok((head.status, body.collect().await?.to_bytes()))
    });
    HeldCall::Http2(chunks, answer)
}

/// Sends the last byte of every call at the same time. Returns the answers.
pub(crate) async fn release_all(held: Vec<HeldCall>) -> Vec<(StatusCode, Value)> {
    let mut answers = Vec::with_capacity(held.len());
    let mut releases: futures::stream::FuturesUnordered<_> = held.into_iter().map(HeldCall::release).collect();
    while let Some(answer) = releases.next().await {
        answers.push(answer);
    }
    answers
}
