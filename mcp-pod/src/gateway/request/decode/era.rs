//! In which revision a request is made: what its headers and its `_meta` say together.
//!
//! 2026-07-28: `MCP-Protocol-Version` and `Mcp-Method` on every message, `Mcp-Name` where a name is called, and the
//! same revision and the client's capabilities in `_meta` of every request. Earlier ones: a session, and the version
//! header of the revision that it negotiated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use mcp_fleet_policy::json::Value;

use super::{Id, Message, Revision};

/// `_meta` key of the revision.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key of the client's capabilities.
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// What of the headers belongs to MCP; a header that comes twice or is not text is `Err`.
#[derive(Debug)]
pub(crate) struct McpHeaders {
    version: Result<Option<String>, ()>,
    method: Result<Option<String>, ()>,
    name: Result<Option<String>, ()>,
    /// The legacy session id, for [`crate::gateway::session`].
    pub(crate) session: Option<Vec<u8>>,
}

/// How a message is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2026-07-28.
    Modern,
    /// Before; the version header, if it was sent, is one of these.
    Legacy(Option<Revision>),
}

/// Why a message belongs to no revision; each is HTTP 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EraError {
    /// A header is missing, doubled, unreadable, or says something else than the body (−32020).
    #[error("{0}")]
    Header(&'static str),
    /// A revision that is not offered (−32022).
    #[error("Unsupported protocol version")]
    Version(String),
    /// A required key of `_meta` is missing (−32602).
    #[error("{0}")]
    Meta(&'static str),
}

impl McpHeaders {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        Self {
            version: one(headers, "mcp-protocol-version"),
            method: one(headers, "mcp-method"),
            name: one(headers, "mcp-name"),
            session: headers.get("mcp-session-id").map(|value| value.as_bytes().to_vec()),
        }
    }
}

/// The one value of a header, with `=?base64?…?=` decoded.
fn one(headers: &HeaderMap, name: &str) -> Result<Option<String>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let text = value.to_str().map_err(|_| ())?.trim_matches([' ', '\t']);
    match text.strip_prefix("=?base64?").and_then(|encoded| encoded.strip_suffix("?=")) {
        Some(encoded) => {
            let bytes = STANDARD.decode(encoded).map_err(|_| ())?;
            String::from_utf8(bytes).map(Some).map_err(|_| ())
        }
        None => Ok(Some(text.to_owned())),
    }
}

/// Tells the era of a message, and holds a modern one to its headers.
pub(crate) fn era(headers: &McpHeaders, message: &Message<'_>) -> Result<Era, EraError> {
    let meta = message.params.iter().find_map(|(name, value)| (name == "_meta").then_some(value));
    let meta_version = meta.and_then(|meta| meta.get(META_VERSION));
    let Ok(version) = &headers.version else {
        return Err(EraError::Header("MCP-Protocol-Version must be one readable value"));
    };
    let revision = match version.as_deref() {
        Some(name) => Some(Revision::from_name(name).ok_or_else(|| EraError::Version(shortened(name)))?),
        None => None,
    };
    match revision {
        Some(Revision::V2026_07_28) => {}
        None if meta_version.is_some() || message.method == "server/discover" => {
            return Err(EraError::Header("MCP-Protocol-Version is missing"));
        }
        legacy => return Ok(Era::Legacy(legacy)),
    }
    match &headers.method {
        Ok(Some(method)) if *method == message.method => {}
        _ => return Err(EraError::Header("Mcp-Method must name the method of the body")),
    }
    if let Some(name) = named(message) {
        match &headers.name {
            Ok(Some(header)) if header == name => {}
            _ => return Err(EraError::Header("Mcp-Name must name what the body names")),
        }
    }
    if message.id.is_some() {
        match meta_version {
            Some(Value::String(name)) if name == Revision::V2026_07_28.as_str() => {}
            Some(_) => return Err(EraError::Header("MCP-Protocol-Version must say what _meta says")),
            None => return Err(EraError::Meta("_meta lacks io.modelcontextprotocol/protocolVersion")),
        }
        if !matches!(meta.and_then(|meta| meta.get(META_CAPABILITIES)), Some(Value::Object(_))) {
            return Err(EraError::Meta("_meta lacks io.modelcontextprotocol/clientCapabilities"));
        }
    }
    Ok(Era::Modern)
}

/// What `Mcp-Name` has to say; of the methods that have it only this one is offered.
fn named<'a>(message: &'a Message<'_>) -> Option<&'a str> {
    if message.method != "tools/call" {
        return None;
    }
    // A name that is missing is refused with the parameters; no header can agree with it.
    message.params.iter().find_map(|(name, value)| if name == "name" { value.as_str() } else { None })
}

/// What is echoed of a version that is not known.
fn shortened(name: &str) -> String {
    name.chars().take(32).collect()
}

impl EraError {
    /// The code of the JSON-RPC error.
    pub(crate) const fn code(&self) -> i32 {
        match self {
            Self::Header(_) => -32020,
            Self::Version(_) => -32022,
            Self::Meta(_) => -32602,
        }
    }

    /// `data` of the JSON-RPC error, as JSON.
    pub(crate) fn data(&self) -> Option<Vec<u8>> {
        let Self::Version(requested) = self else { return None };
        let supported = Revision::OFFERED.map(|revision| format!("\"{}\"", revision.as_str())).join(",");
        let mut data = format!("{{\"supported\":[{supported}],\"requested\":").into_bytes();
        mcp_fleet_policy::json::write_str(requested, &mut data);
        data.push(b'}');
        Some(data)
    }
}

/// The id of a message that is answered.
impl Message<'_> {
    pub(crate) fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::gateway::request::read;

    const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"été","arguments":{},"_meta":{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

    fn told(headers: &[(&'static str, &str)], body: &str) -> Result<Era, EraError> {
        let map = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect::<HeaderMap>();
        era(&McpHeaders::read(&map), &read(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_modern_request_says_the_same_in_headers_and_body() {
        let good =
            [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "=?base64?w6l0w6k=?=")];
        assert_eq!(told(&good, MODERN), Ok(Era::Modern));
        for missing in 0..good.len() {
            let mut headers = good.to_vec();
            headers.remove(missing);
            assert!(matches!(told(&headers, MODERN), Err(EraError::Header(_))), "without {}", good[missing].0);
        }
        let mut headers = good.to_vec();
        headers[2].1 = "other";
        assert!(matches!(told(&headers, MODERN), Err(EraError::Header(_))));
        headers[2].1 = "=?base64?!!!?=";
        assert!(matches!(told(&headers, MODERN), Err(EraError::Header(_))));
    }

    #[test]
    fn a_header_that_comes_twice_is_refused() {
        let mut map = HeaderMap::new();
        map.append("mcp-protocol-version", "2026-07-28".parse().unwrap());
        map.append("mcp-protocol-version", "2025-11-25".parse().unwrap());
        let message = read(MODERN.as_bytes()).unwrap();
        assert!(matches!(era(&McpHeaders::read(&map), &message), Err(EraError::Header(_))));
    }

    #[test]
    fn a_modern_request_carries_version_and_capabilities_in_meta() {
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
        let body =
            |meta: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{meta}}}}}"#);
        let told = |meta: &str| told(&headers, &body(meta)).unwrap_err();
        assert!(matches!(told("{}"), EraError::Meta(_)));
        assert!(matches!(told(r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#), EraError::Meta(_)));
        assert!(matches!(told(r#"{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}"#), EraError::Header(_)));
    }

    #[test]
    fn an_unknown_revision_is_refused_with_the_ones_that_are_offered() {
        let error = told(&[("mcp-protocol-version", "2024-11-05")], r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        let error = error.unwrap_err();
        assert_eq!(error.code(), -32022);
        let data: serde_json::Value = serde_json::from_slice(&error.data().unwrap()).unwrap();
        assert_eq!(data["supported"], serde_json::json!(["2026-07-28", "2025-11-25", "2025-06-18"]));
        assert_eq!(data["requested"], "2024-11-05");
    }

    #[test]
    fn without_a_version_header_a_request_is_legacy_unless_it_says_otherwise() {
        assert_eq!(told(&[], r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#), Ok(Era::Legacy(None)));
        let named = [("mcp-protocol-version", "2025-06-18")];
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert_eq!(told(&named, ping), Ok(Era::Legacy(Some(Revision::V2025_06_18))));
        assert!(matches!(told(&[], MODERN), Err(EraError::Header(_))));
    }
}
