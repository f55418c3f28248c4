//! The scenarios of the client tests with the Rust SDK (tests/clients/README.md).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions, RoleClient, RunningService,
    ServiceError,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

type Failure = Box<dyn std::error::Error>;

#[derive(Clone, Default)]
struct Handler {
    seen: Arc<Mutex<Vec<f64>>>,
}

impl ClientHandler for Handler {
    async fn on_progress(&self, params: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.seen.lock().unwrap().push(params.progress);
    }
}

fn show(step: &str, mut facts: Value) {
    facts["step"] = step.into();
    println!("{facts}");
}

fn facts(result: &CallToolResult) -> Value {
    let text = result.content.first().and_then(|content| content.as_text()).map(|text| text.text.clone());
    json!({"isError": result.is_error == Some(true), "text": text})
}

fn params(name: &'static str, arguments: Value) -> CallToolRequestParams {
    let mut params = CallToolRequestParams::new(name);
    params.arguments = arguments.as_object().cloned();
    params
}

type Client = RunningService<RoleClient, Handler>;

async fn call(client: &Client, name: &'static str, arguments: Value) -> Result<Value, ServiceError> {
    Ok(facts(&client.call_tool(params(name, arguments)).await?))
}

/// Connects with a token.
async fn connect(token: String, handler: Handler) -> Result<Client, Failure> {
    let ca = reqwest::Certificate::from_pem(&std::fs::read(variable("MCP_CA")?)?)?;
    let http = reqwest::Client::builder().tls_certs_only([ca]).build()?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(variable("MCP_URL")?);
    config.auth_header = Some(token);
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let lifecycle = match variable("MCP_ERA")?.as_str() {
        "legacy" => ClientLifecycleMode::Initialize,
        _ => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
    };
    Ok(handler.serve_with_lifecycle(transport, lifecycle).await?)
}

fn variable(name: &str) -> Result<String, std::env::VarError> {
    std::env::var(name)
}

/// Waits for a line of the test.
async fn said() -> std::io::Result<usize> {
    BufReader::new(tokio::io::stdin()).read_line(&mut String::new()).await
}

/// Returns what a call of `echo` ends with that fails or is refused; none if it succeeds.
async fn failure(client: &Client, text: &str) -> Option<Value> {
    match call(client, "echo", json!({"text": text})).await {
        Ok(result) => (result["isError"] == true).then(|| result["text"].clone()),
        Err(error) => Some(error.to_string().into()),
    }
}

/// The scenario of refusals that the gateway gives from the headers alone.
async fn refusals() -> Result<(), Failure> {
    let token = variable("MCP_TOKEN")?;
    let client = connect(token, Handler::default()).await?;
    show("too-large", json!({"error": failure(&client, &"x".repeat(1_000_000)).await}));
    show("after-too-large", call(&client, "echo", json!({"text": "after"})).await?);
    show("ready", json!({}));
    said().await?;
    let mut error = None;
    while error.is_none() {
        error = failure(&client, "flooded").await;
    }
    show("flooded", json!({"error": error}));
    said().await?;
    while failure(&client, "flooded").await.is_some() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    show("after-flooded", call(&client, "echo", json!({"text": "after"})).await?);
    let refused = connect(variable("MCP_EXPIRED")?, Handler::default()).await.err();
    show("expired", json!({"error": refused.map(|error| format!("{error:?}"))}));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    if variable("MCP_REFUSALS").is_ok() {
        return refusals().await;
    }
    let handler = Handler::default();
    let client = connect(variable("MCP_TOKEN")?, handler.clone()).await?;
    let version = client.peer_info().map(|info| info.protocol_version.to_string());
    show("connect", json!({"version": version}));
    if let Ok(seconds) = variable("MCP_LONG") {
        let seconds: u64 = seconds.parse()?;
        let mut result = call(&client, "slow", json!({"seconds": seconds})).await?;
        result["seen"] = handler.seen.lock().unwrap().len().into();
        show("long", result);
        return Ok(());
    }
    let tools: Vec<_> = client.list_all_tools().await?.into_iter().map(|tool| tool.name).collect();
    show("list", json!({"tools": tools}));
    show("call", call(&client, "echo", json!({"text": "hello"})).await?);
    show("null", call(&client, "echo", json!({"text": "hello", "note": null})).await?);
    show("refused", call(&client, "echo", json!({"text": 7})).await?);
    show("large", call(&client, "echo", json!({"text": 725_653_563_933_458_432_u64})).await?);
    show("structured", call(&client, "structured", json!({"n": 7})).await?);
    show("structured-refused", call(&client, "structured", json!({"n": -1})).await?);
    show("structured-failed", call(&client, "structured", json!({"n": 0})).await?);
    if let Err(ServiceError::McpError(error)) = call(&client, "nothing", json!({})).await {
        show("unknown", json!({"code": error.code.0}));
    }
    handler.seen.lock().unwrap().clear();
    call(&client, "progress", json!({"steps": 3})).await?;
    show("progress", json!({"seen": *handler.seen.lock().unwrap()}));
    let request = CallToolRequest::new(params("slow", json!({"seconds": 60})));
    let options = PeerRequestOptions::no_options();
    let handle = client.send_cancellable_request(ClientRequest::CallToolRequest(request), options).await?;
    while call(&client, "started", json!({})).await?["text"] == "0" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    handle.cancel(Some("enough".into())).await?;
    show("cancel", json!({"isError": true, "text": "cancelled"}));
    let mut cancelled = call(&client, "cancelled", json!({})).await?;
    while cancelled["text"] == "0" {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancelled = call(&client, "cancelled", json!({})).await?;
    }
    show("cancelled", cancelled);
    show("restart", json!({}));
    said().await?;
    show("again", call(&client, "echo", json!({"text": "again"})).await?);
    Ok(())
}
