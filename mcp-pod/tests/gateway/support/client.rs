//! A client of the gateway: one connection, with requests as raw as a test needs them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::eventually;
use super::pki::Pki;

/// A client with one HTTP/1.1 connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    pub(crate) token: Option<String>,
    /// The legacy session, once there is one.
    pub(crate) session: Option<String>,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns the JSON-RPC message.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the reason in `_meta` of a denied or failed call, and its text.
    pub(crate) fn denial(&self) -> (String, String) {
        assert_eq!(self.status, 200);
        let message = self.json();
        let result = &message["result"];
        assert_eq!(result["isError"], true, "{message}");
        let denial = &result["_meta"]["mcp-fleet.dev/denial"];
        let text = result["content"][0]["text"].as_str().unwrap().to_owned();
        assert!(text.contains(denial["reason"].as_str().unwrap()) && text.contains(denial["hint"].as_str().unwrap()));
        (denial["reason"].as_str().unwrap().to_owned(), text)
    }

    /// Returns code and message of a JSON-RPC error.
    pub(crate) fn error(&self) -> (i64, String) {
        let message = self.json();
        let error = &message["error"];
        (error["code"].as_i64().unwrap_or_else(|| panic!("{message}")), error["message"].as_str().unwrap().to_owned())
    }

    /// Returns the messages in an event stream.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let text = std::str::from_utf8(&self.body).unwrap();
        // Comments have no data, and the first event of a stream that can be resumed has empty data.
        let data = |event: &'_ str| event.lines().find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
        let messages = text.split_terminator("\n\n").filter_map(data).filter(|data| !data.is_empty());
        messages.map(|data| serde_json::from_str(&data).unwrap()).collect()
    }
}

/// Opens a TLS connection to the gateway, under a name in its certificate.
pub(crate) async fn tls(address: SocketAddr, pki: &Pki) -> TlsStream<TcpStream> {
    tls_offering(address, pki, &[]).await
}

/// Opens a TLS connection to the gateway that offers these ALPN protocols.
pub(crate) async fn tls_offering(address: SocketAddr, pki: &Pki, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    tls_from(Ipv4Addr::LOCALHOST, address, pki, protocols).await.unwrap()
}

/// Opens a TLS connection from a loopback address. Fails if the gateway closes it.
pub(crate) async fn tls_from(
    source: Ipv4Addr,
    address: SocketAddr,
    pki: &Pki,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let ca = CertificateDer::from_pem_slice(&pki.gateway.ca_pem()).unwrap();
    tls_for("gateway.acme-mcp.svc", ca, (source, address), protocols).await
}

/// Opens a TLS connection to a name, whose certificate has to chain to `ca`.
pub(crate) async fn tls_for(
    name: &'static str,
    ca: CertificateDer<'static>,
    (source, address): (Ipv4Addr, SocketAddr),
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv4() {
        socket.bind((source, 0).into())?;
    }
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, pki: &Pki, token: Option<&str>) -> Self {
        let (sender, connection) = handshake(TokioIo::new(tls(address, pki).await)).await.unwrap();
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender, driver, token: token.map(str::to_owned), session: None }
    }

    /// Closes the connection at once, whatever is in flight.
    pub(crate) fn disconnect(self) {
        self.driver.abort();
    }

    /// Starts a call of 2026-07-28 that is not answered, and closes the connection once `condition` is true.
    pub(crate) async fn call_and_hang_up(
        self,
        tool: &str,
        arguments: Value,
        what: &str,
        condition: impl FnMut() -> bool,
    ) {
        let (body, headers) = modern("tools/call", json!({"name": tool, "arguments": arguments}));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.send_and_hang_up(&headers, body, what, condition).await;
    }

    /// Sends a request that is not answered, and closes the connection once `condition` is true.
    pub(crate) async fn send_and_hang_up(
        mut self,
        headers: &[(&str, &str)],
        body: String,
        what: &str,
        condition: impl FnMut() -> bool,
    ) {
        tokio::select! {
            answer = self.start(Method::POST, "/files/mcp", headers, body) => panic!("not {what}, but {answer:?}"),
            () = eventually(what, condition) => {}
        }
        self.disconnect();
    }

    /// Sends a request with the client's token and returns the head of the answer. Adds default `Content-Type` and
    /// `Accept` headers if `headers` does not contain them.
    pub(crate) async fn start(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        self.try_start(method, path, headers, body).await.unwrap()
    }

    /// Sends a request and returns the head of the answer, or an error if the gateway closes the connection.
    async fn try_start(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Result<http::Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "gateway.acme-mcp.svc");
        let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        if !given("content-type") {
            request = request.header("content-type", "application/json");
        }
        if !given("accept") {
            request = request.header("accept", "application/json, text/event-stream");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Sends a request and returns the whole answer.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.start(method, path, headers, body).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Sends a message of 2026-07-28 with all its headers.
    pub(crate) async fn modern(&mut self, method: &str, params: Value) -> Answer {
        let (body, headers) = modern(method, params);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.send(Method::POST, "/files/mcp", &headers, body).await
    }

    /// Calls a tool in 2026-07-28.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Answer {
        self.modern("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Calls a tool in 2026-07-28. Fails if the gateway closes the connection.
    pub(crate) async fn try_call(&mut self, tool: &str, arguments: Value) -> hyper::Result<Answer> {
        let (body, headers) = modern("tools/call", json!({"name": tool, "arguments": arguments}));
        self.try_send(&headers, body).await
    }

    /// Sends a message. Fails if the connection is closed before the end of the answer.
    pub(crate) async fn try_send(&mut self, headers: &[(&str, String)], body: String) -> hyper::Result<Answer> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (head, body) = self.try_start(Method::POST, "/files/mcp", &headers, body).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// Makes calls one after the other. Returns their answers.
    pub(crate) async fn calls(mut self, count: usize) -> (Self, Vec<Answer>) {
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(self.call("echo", json!({})).await);
        }
        (self, answers)
    }

    /// Initializes a legacy session.
    pub(crate) async fn initialize(&mut self, version: &str) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": version, "capabilities": {"roots": {"listChanged": true}, "sampling": {}},
            "clientInfo": {"name": "test", "version": "1"}}});
        let answer = self.send(Method::POST, "/files/mcp", &[], body.to_string()).await;
        self.session = answer.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        answer
    }

    /// Sends a message in the legacy session.
    pub(crate) async fn legacy(&mut self, body: impl Into<Bytes>) -> Answer {
        let session = self.session.clone().unwrap_or_default();
        self.send(Method::POST, "/files/mcp", &[("mcp-session-id", &session)], body).await
    }

    /// Calls a tool in the legacy session.
    pub(crate) async fn legacy_call(&mut self, tool: &str, arguments: Value) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
        self.legacy(body.to_string()).await
    }
}

/// Returns body and headers of a message of 2026-07-28.
pub(crate) fn modern(method: &str, mut params: Value) -> (String, Vec<(&'static str, String)>) {
    let mut headers = vec![("mcp-protocol-version", "2026-07-28".to_owned()), ("mcp-method", method.to_owned())];
    if let Some(name) = params["name"].as_str() {
        headers.push(("mcp-name", name.to_owned()));
    }
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    (json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string(), headers)
}
