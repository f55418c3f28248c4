//! The start of a run: `initialize`, or `server/discover` where a server knows only that, and the list of tools.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcp_fleet_policy::reason::Reason;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing::warn;

use super::rpc::{MODERN, Params, Phase, QueueError, Request, RequestOutcome, RpcClient, Sent};
use crate::envelope::{ServerReport, VERSION};

/// The MCP revision that the shim offers. A server may respond with an older one.
const REVISION: &str = "2025-11-25";
/// Revisions in which `tools/list` and `tools/call` are the same for a client.
const REVISIONS: [&str; 4] = [REVISION, "2025-06-18", "2025-03-26", "2024-11-05"];
/// Time for a server that refuses `initialize` to say that it knows a later revision.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(10);
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
    #[error("failed to get a response to {method}: {detail}")]
    Lost { method: &'static str, detail: String },
    #[error("failed to use the response to {method}: {detail}")]
    Refused { method: &'static str, detail: String },
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

#[derive(Clone, Copy, Default, Deserialize)]
struct Capabilities {
    tools: Option<ToolsCapability>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolsCapability {
    /// Whether the server says when it has other tools.
    #[serde(default)]
    list_changed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoverResult {
    supported_versions: Vec<String>,
    #[serde(default)]
    capabilities: Capabilities,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default, rename = "_meta")]
    meta: DiscoverMeta,
}

#[derive(Default, Deserialize)]
struct DiscoverMeta {
    #[serde(rename = "io.modelcontextprotocol/serverInfo")]
    server_info: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Page {
    tools: Vec<Box<RawValue>>,
    #[serde(rename = "nextCursor")]
    next_cursor: Option<String>,
}

/// Initializes the server, without any client capability, and reads all its tools.
pub(super) async fn start(client: &Arc<RpcClient>) -> Result<ServerReport, StartError> {
    let (about, capabilities) = match initialize(client).await {
        Ok(started) => started,
        // It answers, but not as a server that knows `initialize`.
        Err(error @ StartError::Refused { .. }) => match timeout(DISCOVER_TIMEOUT, discover(client)).await {
            Ok(Ok(started)) => started,
            Ok(Err(other @ (StartError::ServerEnded(_) | StartError::Lost { .. }))) => return Err(other),
            Ok(Err(_)) | Err(_) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    client.set_phase(Phase::Listing);
    if client.revision() != Some(MODERN) {
        client.notify(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n".to_vec());
    }
    let tools = if capabilities.tools.is_some() { list_tools(client).await? } else { Vec::new() };
    client.set_phase(Phase::Started);
    if capabilities.tools.is_some_and(|tools| tools.list_changed) {
        client.send(listen(client), Sent::Listen);
    }
    Ok(ServerReport { version: VERSION, initialize: about, tools })
}

/// Begins a session (MCP 2025-11-25 and earlier). Returns the result and what the server can do.
async fn initialize(client: &Arc<RpcClient>) -> Result<(Box<RawValue>, Capabilities), StartError> {
    let version = env!("CARGO_PKG_VERSION");
    let params = format!(
        r#"{{"protocolVersion":"{REVISION}","capabilities":{{}},"clientInfo":{{"name":"mcp-fleet","version":"{version}"}}}}"#
    );
    let initialize = request(client, "initialize", params.as_bytes()).await?;
    let result: InitializeResult = parse("initialize", &initialize)?;
    let Some(revision) = REVISIONS.into_iter().find(|revision| *revision == result.protocol_version) else {
        let detail = format!("its revision is none of {REVISIONS:?}");
        return Err(StartError::Response { method: "initialize", detail });
    };
    client.set_revision(Some(revision));
    Ok((parse("initialize", &initialize)?, result.capabilities))
}

/// Asks a server without sessions what it is (MCP 2026-07-28). Returns that as the result of `initialize`, and what it can do.
async fn discover(client: &Arc<RpcClient>) -> Result<(Box<RawValue>, Capabilities), StartError> {
    let method = "server/discover";
    client.set_revision(Some(MODERN));
    let params = format!("{{\"_meta\":{{{}}}}}", client.meta());
    let answer = request(client, method, params.as_bytes()).await?;
    let result: DiscoverResult = parse(method, &answer)?;
    if !result.supported_versions.iter().any(|version| version == MODERN) {
        let detail = format!("its revisions do not include {MODERN}");
        return Err(StartError::Response { method, detail });
    }
    let mut about = serde_json::json!({"protocolVersion": MODERN, "capabilities": {}});
    if let Some(info) = &result.meta.server_info {
        about["serverInfo"] = parse(method, info.get().as_bytes())?;
    }
    if let Some(instructions) = result.instructions {
        about["instructions"] = instructions.into();
    }
    Ok((parse(method, about.to_string().as_bytes())?, result.capabilities))
}

/// Returns the line that asks for a notification when the tools change. A server with sessions sends it without one.
fn listen(client: &RpcClient) -> Vec<u8> {
    match client.meta() {
        "" => Vec::new(),
        meta => format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":\"tools\",\"method\":\"subscriptions/listen\",\
             \"params\":{{\"_meta\":{{{meta}}},\"notifications\":{{\"toolsListChanged\":true}}}}}}\n"
        )
        .into_bytes(),
    }
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
        let cursor_member = cursor.as_ref().map(|cursor| format!("\"cursor\":{}", serde_json::json!(cursor)));
        let meta_member =
            Some(client.meta()).filter(|meta| !meta.is_empty()).map(|meta| format!("\"_meta\":{{{meta}}}"));
        let members: Vec<_> = meta_member.into_iter().chain(cursor_member).collect();
        let params = format!("{{{}}}", members.join(","));
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
        Ok(RequestOutcome::Error(error)) => {
            // What else it says is the server's own text, which may contain what only the server should know.
            let code = serde_json::from_slice::<ErrorCode>(&error).map(|error| error.code).ok();
            let detail = code.map_or("it is an error".to_owned(), |code| format!("it is the error {code}"));
            return Err(StartError::Refused { method, detail });
        }
        Ok(RequestOutcome::Failed { reason: Reason::UpstreamUnavailable, detail, .. }) => {
            return Err(StartError::Lost { method, detail });
        }
        Ok(RequestOutcome::Failed { detail, .. }) => return Err(StartError::Refused { method, detail }),
        Ok(RequestOutcome::TooLarge) => return Err(StartError::TooLarge),
        Ok(RequestOutcome::Invalid) => "it has neither a result nor an error",
        Ok(RequestOutcome::NotJson) => "it is not valid JSON-RPC",
        Ok(RequestOutcome::OtherId(id)) => {
            let detail = format!("its id is {id}, which is not the one of the request");
            return Err(StartError::Response { method, detail });
        }
        Ok(RequestOutcome::ServerEnded { .. } | RequestOutcome::Cancelled) | Err(_) => {
            return Err(StartError::ServerEnded(method));
        }
    };
    Err(StartError::Response { method, detail: detail.to_owned() })
}

#[derive(Deserialize)]
struct ErrorCode {
    code: i64,
}

fn parse<'a, T: Deserialize<'a>>(method: &'static str, result: &'a [u8]) -> Result<T, StartError> {
    serde_json::from_slice(result).map_err(|error| StartError::Response { method, detail: error.to_string() })
}
