//! The one `initialize` of a run, and the list of tools.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::link::{Answer, Full, Link, Params, Request};
use crate::envelope::{ServerReport, VERSION};

/// The revision we ask for; a server may answer with an older one.
const REVISION: &str = "2025-11-25";
/// Revisions whose tools/list and tools/call are the same from our side.
const REVISIONS: [&str; 4] = [REVISION, "2025-06-18", "2025-03-26", "2024-11-05"];
/// Bounds of what a server may say of itself.
const MAX_PAGES: usize = 50;
const MAX_TOOLS: usize = 1000;
const MAX_BYTES: usize = 4 << 20;

/// Why a server could not be taken into service.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("failed to ask {0}: the server does not take requests")]
    Full(&'static str),
    #[error("failed to get an answer to {0}: the server ended")]
    Gone(&'static str),
    #[error("failed to use the answer to {method}: {what}")]
    Answer { method: &'static str, what: String },
    #[error("failed to read the tools: more than {MAX_PAGES} pages, {MAX_TOOLS} tools or {MAX_BYTES} bytes")]
    TooMuch,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
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

/// Initializes the server, with no capability of ours, and reads all its tools.
pub(super) async fn start(link: &Arc<Link>) -> Result<ServerReport, StartError> {
    let version = env!("CARGO_PKG_VERSION");
    let hello = format!(
        r#"{{"protocolVersion":"{REVISION}","capabilities":{{}},"clientInfo":{{"name":"mcp-fleet","version":"{version}"}}}}"#
    );
    let initialize = ask(link, "initialize", hello.as_bytes()).await?;
    let initialized: Initialized = parse("initialize", &initialize)?;
    if !REVISIONS.contains(&&*initialized.protocol_version) {
        let what = format!("its revision is none of {REVISIONS:?}");
        return Err(StartError::Answer { method: "initialize", what });
    }
    link.tell(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n".to_vec());
    let tools = if initialized.capabilities.tools.is_some() { list(link).await? } else { Vec::new() };
    Ok(ServerReport { version: VERSION, initialize: parse("initialize", &initialize)?, tools })
}

async fn list(link: &Arc<Link>) -> Result<Vec<Box<RawValue>>, StartError> {
    let method = "tools/list";
    let mut tools = Vec::new();
    let mut bytes = 0;
    let mut cursor: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let params = match &cursor {
            None => "{}".to_owned(),
            Some(cursor) => serde_json::json!({ "cursor": cursor }).to_string(),
        };
        let answer = ask(link, method, params.as_bytes()).await?;
        let page: Page = parse(method, &answer)?;
        bytes += answer.len();
        tools.extend(page.tools);
        if tools.len() > MAX_TOOLS || bytes > MAX_BYTES {
            return Err(StartError::TooMuch);
        }
        if page.next_cursor.is_none() {
            return Ok(tools);
        }
        cursor = page.next_cursor;
    }
    Err(StartError::TooMuch)
}

async fn ask(link: &Arc<Link>, method: &'static str, params: &[u8]) -> Result<Bytes, StartError> {
    let request = Request { method, params: Params::Plain(params), max_answer: MAX_BYTES };
    let mut ticket = link.ask(&request).map_err(|full| match full {
        Full::Closed => StartError::Gone(method),
        Full::Busy => StartError::Full(method),
    })?;
    let what = match (&mut ticket.answer).await {
        Ok(Answer::Result(result)) => return Ok(result),
        Ok(Answer::Error(_)) => "it is an error",
        Ok(Answer::TooLarge) => return Err(StartError::TooMuch),
        Ok(Answer::Invalid) => "it has neither a result nor an error",
        Ok(Answer::Gone { .. }) | Err(_) => return Err(StartError::Gone(method)),
    };
    Err(StartError::Answer { method, what: what.to_owned() })
}

fn parse<'a, T: Deserialize<'a>>(method: &'static str, result: &'a [u8]) -> Result<T, StartError> {
    serde_json::from_slice(result).map_err(|error| StartError::Answer { method, what: error.to_string() })
}
