//! An MCP caller of the 2026-07-28 revision that shows exactly what came back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::{Api, Client};
use serde_json::{Value, json};

/// What came back from one call.
#[derive(Debug)]
pub enum Answer {
    /// The text of the result.
    Text(String),
    /// A refusal with its reason.
    Refused(String),
    /// A JSON-RPC error, or an HTTP status other than 200, with its body.
    Error(String),
    /// The connection broke.
    Broken(String),
}

impl Answer {
    /// The reason of a refusal.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(reason) => Some(reason),
            _ => None,
        }
    }
}

/// One principal, calling one tenant's gateway.
#[derive(Debug)]
pub struct Caller {
    http: reqwest::Client,
    url: String,
    token: String,
    next: AtomicU64,
}

impl Caller {
    /// A caller with the credential of a principal, from its Secret.
    pub async fn new(client: &Client, namespace: &str, runtime: &str, principal: &str) -> Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = secrets.get(&format!("{principal}-mcp-credential")).await?;
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| -> Result<String> {
            let bytes = data.get(key).with_context(|| format!("the credential has no {key}"))?;
            Ok(String::from_utf8(bytes.0.clone())?)
        };
        let services: Api<Service> = Api::namespaced(client.clone(), runtime);
        let service = services.get("gateway").await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the gateway has no address")?;
        let url = text("url")?;
        let host = url.trim_start_matches("https://").to_owned();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(text("ca.crt")?.as_bytes())?])
            // The node has no cluster DNS, and a proxy has no place here.
            .resolve(&host, SocketAddr::new(address.parse()?, 443))
            .no_proxy()
            .timeout(Duration::from_secs(40))
            .build()?;
        Ok(Self { http, url, token: text("token")?, next: AtomicU64::new(1) })
    }

    /// Calls a tool.
    pub async fn call(&self, server: &str, tool: &str, arguments: &BTreeMap<&str, &str>) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let message = json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {
                "name": tool, "arguments": arguments,
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                    "io.modelcontextprotocol/clientInfo": {"name": "fault-tests", "version": "1"},
                },
            },
        });
        let request = self
            .http
            .post(format!("{}/{server}/mcp", self.url))
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .json(&message);
        match request.send().await {
            Err(error) => Answer::Broken(format!("{error:?}")),
            Ok(response) => {
                let status = response.status();
                match response.text().await {
                    Err(error) => Answer::Broken(format!("{error:?}")),
                    Ok(body) if status.is_success() => read(id, &body),
                    Ok(body) => Answer::Error(format!("{status}: {body}")),
                }
            }
        }
    }

    /// Calls a tool with the argument `word`.
    pub async fn say(&self, server: &str, tool: &str, word: &str) -> Answer {
        self.call(server, tool, &BTreeMap::from([("word", word)])).await
    }
}

fn read(id: u64, body: &str) -> Answer {
    let Ok(message) = serde_json::from_str::<Value>(body) else {
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
