//! The start of a run: `initialize` and the list of tools.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::warn;

use super::rpc::{Params, Phase, QueueError, Request, RequestOutcome, RpcClient};
use crate::envelope::{ServerReport, VERSION};

/// The MCP revision that the shim offers. A server may respond with an older one.
const REVISION: &str = "2025-11-25";
/// Revisions in which `tools/list` and `tools/call` are the same for a client.
const REVISIONS: [&str; 4] = [REVISION, "2025-06-18", "2025-03-26", "2024-11-05"];
const MAX_PAGES: usize = 50;
const MAX_TOOLS: usize = 1000;
/// Limit on the bytes of each response, and of all tools together.
const MAX_BYTES: usize = 4 << 20;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("failed to send {0}: the server does not read its requests")]
    QueueFull(&'static str),
    #[error("failed to get a response to {0}: the server ended")]
    ServerEnded(&'static str),
    #[error("failed to use the response to {method}: {detail}")]
    Response { method: &'static str, detail: String },
    #[error("failed to read the tools: more than {MAX_PAGES} pages, {MAX_TOOLS} tools or {MAX_BYTES} bytes")]
    TooLarge,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Default, Deserialize)]
struct Capabilities {
    tools: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Page {
    tools: Vec<Box<RawValue>>,
    #[serde(rename = "nextCursor")]
    next_cursor: Option<String>,
}

/// Initializes the server, without any client capability, and reads all its tools.
pub(super) async fn start(client: &Arc<RpcClient>) -> Result<ServerReport, StartError> {
    let version = env!("CARGO_PKG_VERSION");
    let params = format!(
        r#"{{"protocolVersion":"{REVISION}","capabilities":{{}},"clientInfo":{{"name":"mcp-fleet","version":"{version}"}}}}"#
    );
    let initialize = request(client, "initialize", params.as_bytes()).await?;
    let result: InitializeResult = parse("initialize", &initialize)?;
    if !REVISIONS.contains(&&*result.protocol_version) {
        let detail = format!("its revision is none of {REVISIONS:?}");
        return Err(StartError::Response { method: "initialize", detail });
    }
    client.set_phase(Phase::Listing);
    client.notify(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n".to_vec());
    let tools = if result.capabilities.tools.is_some() { list_tools(client).await? } else { Vec::new() };
    client.set_phase(Phase::Started);
    Ok(ServerReport { version: VERSION, initialize: parse("initialize", &initialize)?, tools })
}

/// Reads all tools again of a server that says that it has others. Returns the report with them.
pub(super) async fn list_again(client: &Arc<RpcClient>, before: ServerReport) -> Result<ServerReport, StartError> {
    Ok(ServerReport { tools: list_tools(client).await?, ..before })
}

async fn list_tools(client: &Arc<RpcClient>) -> Result<Vec<Box<RawValue>>, StartError> {
    let method = "tools/list";
    let mut tools: Vec<Box<RawValue>> = Vec::new();
    let mut known = HashSet::new();
    let mut bytes = 0;
    let mut cursor: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let params = match &cursor {
            None => "{}".to_owned(),
            Some(cursor) => serde_json::json!({ "cursor": cursor }).to_string(),
        };
        let result = request(client, method, params.as_bytes()).await?;
        let page: Page = parse(method, &result)?;
        bytes += result.len();
        // A server that does not know its cursors returns the same page again and again.
        tools.extend(page.tools.into_iter().filter(|tool| known.insert(tool.get().to_owned())));
        if tools.len() > MAX_TOOLS || bytes > MAX_BYTES {
            return Err(StartError::TooLarge);
        }
        if page.next_cursor.as_ref().is_none_or(String::is_empty) {
            return Ok(tools);
        }
        if page.next_cursor == cursor {
            warn!("the server repeats the cursor of a page of tools; what was read until now counts");
            return Ok(tools);
        }
        cursor = page.next_cursor;
    }
    Err(StartError::TooLarge)
}

/// Sends a request and returns the result as the server wrote it.
async fn request(client: &Arc<RpcClient>, method: &'static str, params: &[u8]) -> Result<Bytes, StartError> {
    let request = Request { method, params: Params::Plain(params), max_response: MAX_BYTES };
    let mut handle = client.request(&request).map_err(|error| match error {
        QueueError::ServerEnded => StartError::ServerEnded(method),
        QueueError::Full => StartError::QueueFull(method),
    })?;
    let detail = match (&mut handle.outcome).await {
        Ok(RequestOutcome::Result(result)) => return Ok(result),
        Ok(RequestOutcome::Error(_)) => "it is an error",
        Ok(RequestOutcome::TooLarge) => return Err(StartError::TooLarge),
        Ok(RequestOutcome::Invalid) => "it has neither a result nor an error",
        Ok(RequestOutcome::NotJson) => "it is not valid JSON-RPC",
        Ok(RequestOutcome::OtherId(id)) => {
            let detail = format!("its id is {id}, which is not the one of the request");
            return Err(StartError::Response { method, detail });
        }
        Ok(RequestOutcome::ServerEnded { .. }) | Err(_) => return Err(StartError::ServerEnded(method)),
    };
    Err(StartError::Response { method, detail: detail.to_owned() })
}

fn parse<'a, T: Deserialize<'a>>(method: &'static str, result: &'a [u8]) -> Result<T, StartError> {
    serde_json::from_slice(result).map_err(|error| StartError::Response { method, detail: error.to_string() })
}
