//! An MCP client for revision 2026-07-28 that distinguishes every kind of answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Outcome of one call.
#[derive(Debug)]
pub enum Answer {
    /// A result, with its text.
    Text(String),
    /// A refusal, with its reason.
    Refused(String),
    /// A JSON-RPC error, an HTTP error status or an unexpected body, with the body.
    Error(String),
    /// A transport error, such as a closed connection.
    TransportError(String),
}

impl Answer {
    /// Returns the reason of a refusal.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(reason) => Some(reason),
            _ => None,
        }
    }
}

/// A principal that calls the gateway of its tenant.
#[derive(Debug)]
pub struct Caller {
    http: reqwest::Client,
    url: String,
    ca: String,
    token: String,
    next_id: AtomicU64,
}

impl Caller {
    /// Returns a caller with the current credential of a principal, from its Secret.
    pub async fn new(client: &Client, namespace: &str, runtime: &str, principal: &str) -> Result<Self> {
        let credential = credential(client, namespace, principal).await?;
        let value = |key: &str| credential.get(key).with_context(|| format!("the credential has no {key}"));
        Self::with(client, runtime, value("url")?, value("ca.crt")?, value("token")?).await
    }

    /// Returns a caller with a token, of a URL of the gateway whose certificate is from an authority in PEM.
    pub async fn with(client: &Client, runtime: &str, url: &str, ca: &str, token: &str) -> Result<Self> {
        let services: Api<Service> = Api::namespaced(client.clone(), runtime);
        let service = services.get("gateway").await?;
        let address =
            service.spec.and_then(|spec| spec.cluster_ip).context("the Service of the gateway has no cluster IP")?;
        Self::at(address.parse()?, url, ca, token)
    }

    /// Returns a caller of the same principal that connects to one pod of the gateway.
    pub fn through(&self, pod: IpAddr) -> Result<Self> {
        let host = self.url.trim_start_matches("https://").split(':').next().unwrap_or_default();
        Self::at(pod, &format!("https://{host}:8443"), &self.ca, &self.token)
    }

    /// Returns a caller that connects to an address.
    fn at(address: IpAddr, url: &str, ca: &str, token: &str) -> Result<Self> {
        let host = url.trim_start_matches("https://").split(':').next().unwrap_or_default();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes())?])
            .tls_info(true)
            // The tests run outside pods, where cluster DNS does not resolve names. No proxy can reach the gateway.
            // The port is that of the URL.
            .resolve(host, SocketAddr::new(address, 0))
            .no_proxy()
            .timeout(Duration::from_secs(40))
            .build()?;
        let (url, ca, token) = (url.to_owned(), ca.to_owned(), token.to_owned());
        Ok(Self { http, url, ca, token, next_id: AtomicU64::new(1) })
    }

    /// Opens a connection, and returns the certificate that the gateway serves on it, in DER.
    pub async fn certificate(&self) -> Result<Vec<u8>> {
        let answer = self.http.get(&self.url).header("connection", "close").send().await?;
        let info = answer.extensions().get::<reqwest::tls::TlsInfo>().context("the connection has no TLS")?;
        Ok(info.peer_certificate().context("the gateway has no certificate")?.to_vec())
    }

    /// Calls a tool with string arguments.
    pub async fn call(&self, server: &str, tool: &str, arguments: &BTreeMap<&str, &str>) -> Answer {
        let (id, message) = self.message("tools/call", json!({"name": tool, "arguments": arguments}));
        match self.request(server, "tools/call").header("mcp-name", tool).json(&message).send().await {
            Err(error) => Answer::TransportError(format!("{error:?}")),
            Ok(response) => {
                let status = response.status();
                match response.text().await {
                    Err(error) => Answer::TransportError(format!("{error:?}")),
                    Ok(body) if status.is_success() => parse(id, &body),
                    Ok(body) => Answer::Error(format!("{status}: {body}")),
                }
            }
        }
    }

    /// Returns the names of the tools that are listed.
    pub async fn tools(&self, server: &str) -> Result<Vec<String>> {
        let (_, message) = self.message("tools/list", json!({}));
        let answer = self.request(server, "tools/list").json(&message).send().await?;
        let listed: Value = serde_json::from_str(&answer.error_for_status()?.text().await?)?;
        let tools = listed["result"]["tools"].as_array().with_context(|| format!("no tools are listed: {listed}"))?;
        Ok(tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect())
    }

    /// Sends a call on a connection of its own, without the last byte of a body of `length` bytes. Returns when the
    /// gateway has refused it.
    pub async fn call_without_last_byte(&self, server: &str, tool: &str, length: usize) {
        let (_, message) = self.message("tools/call", json!({"name": tool, "arguments": {}}));
        // White space after the message is part of the body.
        let mut body = message.to_string().into_bytes();
        assert!(body.len() < length);
        body.resize(length - 1, b' ');
        let sent = futures::stream::once(async { Ok::<_, std::convert::Infallible>(body) });
        let request = self.request(server, "tools/call").header("mcp-name", tool);
        let request = request.header("content-type", "application/json");
        let request = request.header("content-length", length);
        let endless = reqwest::Body::wrap_stream(futures::StreamExt::chain(sent, futures::stream::pending()));
        drop(request.body(endless).send().await);
    }

    /// Returns a message and its id.
    fn message(&self, method: &str, mut params: Value) -> (u64, Value) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "fault-tests", "version": "1"},
        });
        (id, json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// Returns a request without its body.
    fn request(&self, server: &str, method: &str) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}/{server}/mcp", self.url))
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
    }

    /// Calls a tool with the argument `word`.
    pub async fn call_with_word(&self, server: &str, tool: &str, word: &str) -> Answer {
        self.call(server, tool, &BTreeMap::from([("word", word)])).await
    }
}

/// Returns what is in the Secret with the credential of a principal.
pub async fn credential(client: &Client, namespace: &str, principal: &str) -> Result<BTreeMap<String, String>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get(&format!("{principal}-mcp-credential")).await?;
    let data = secret.data.unwrap_or_default().into_iter();
    data.map(|(key, value)| Ok((key, String::from_utf8(value.0)?))).collect()
}

fn parse(id: u64, body: &str) -> Answer {
    // A long call is answered as an event stream, whose last event is the answer.
    let last_event = || body.lines().rev().find_map(|line| line.strip_prefix("data: "));
    let message = if body.starts_with('{') { body } else { last_event().unwrap_or(body) };
    let Ok(message) = serde_json::from_str::<Value>(message) else {
        return Answer::Error(format!("not JSON: {body}"));
    };
    if message["id"] != json!(id) {
        return Answer::Error(format!("the answer to another call: {body}"));
    }
    let result = &message["result"];
    if let Some(reason) = result["_meta"]["mcp-fleet.dev/denial"]["reason"].as_str() {
        return Answer::Refused(reason.to_owned());
    }
    match result["content"][0]["text"].as_str() {
        Some(text) if result["isError"] != json!(true) => Answer::Text(text.to_owned()),
        _ => Answer::Error(body.to_owned()),
    }
}
