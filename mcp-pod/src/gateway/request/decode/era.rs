//! Detection of a message's era, from its headers and its `_meta`.
//!
//! A message of 2026-07-28 has the headers `MCP-Protocol-Version` and `Mcp-Method`, and `Mcp-Name` if it calls
//! something by name; `_meta` of every request repeats the revision and carries the client's capabilities. A message of
//! an earlier revision belongs to a session and may have the version header of the revision that was negotiated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use mcp_fleet_policy::json::Value;

use super::{Id, Message, Revision, TOOLS_CALL};

/// Key of the revision in `_meta`.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Key of the client's capabilities in `_meta`.
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// The MCP headers of a request. A header that is repeated or not text is `Err`.
#[derive(Debug)]
pub(crate) struct McpHeaders {
    version: Result<Option<String>, ()>,
    method: Result<Option<String>, ()>,
    name: Result<Option<String>, ()>,
    /// The legacy session id.
    pub(crate) session: Option<Vec<u8>>,
}

/// The group of revisions that a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2026-07-28.
    Modern,
    /// An earlier revision: the one that its session negotiated.
    Legacy,
}

/// Why the era of a message cannot be determined. Each is answered with HTTP 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EraError {
    /// A header is missing, repeated, unreadable, or does not match the body (−32020).
    #[error("{0}")]
    Header(&'static str),
    /// The revision is not offered (−32022).
    #[error("Unsupported protocol version")]
    Version(String),
    /// A required key of `_meta` is missing (−32602).
    #[error("{0}")]
    Meta(&'static str),
}

impl McpHeaders {
    /// Returns whether the version header names 2026-07-28.
    pub(crate) fn are_modern(&self) -> bool {
        matches!(&self.version, Ok(Some(version)) if version == Revision::V2026_07_28.as_str())
    }

    /// Reads the MCP headers of a request.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        Self {
            version: single_value(headers, "mcp-protocol-version"),
            method: single_value(headers, "mcp-method"),
            name: single_value(headers, "mcp-name"),
            session: headers.get("mcp-session-id").map(|value| value.as_bytes().to_vec()),
        }
    }
}

/// Returns the only value of a header, with `=?base64?…?=` decoded.
fn single_value(headers: &HeaderMap, name: &str) -> Result<Option<String>, ()> {
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

/// Detects the era of a message, and checks that headers and body of a modern one match.
pub(crate) fn detect_era(headers: &McpHeaders, message: &Message<'_>) -> Result<Era, EraError> {
    let meta = message.params.iter().find_map(|(name, value)| (name == "_meta").then_some(value));
    let meta_version = meta.and_then(|meta| meta.get(META_VERSION));
    let Ok(version) = &headers.version else {
        return Err(EraError::Header("MCP-Protocol-Version must be a single readable value"));
    };
    let revision = match version.as_deref() {
        Some(name) => match Revision::from_name(name) {
            // The revision is negotiated by the body; what the client will speak is not known yet.
            None if message.method == "initialize" => None,
            None => return Err(EraError::Version(truncated(name))),
            offered => offered,
        },
        None => None,
    };
    match revision {
        Some(Revision::V2026_07_28) => {}
        Some(legacy) if meta_version.is_some_and(|version| version.as_str() != Some(legacy.as_str())) => {
            return Err(EraError::Header("MCP-Protocol-Version must match the version in _meta"));
        }
        None if meta_version.is_some() || message.method == "server/discover" => {
            return Err(EraError::Header("MCP-Protocol-Version is missing"));
        }
        _ => return Ok(Era::Legacy),
    }
    match &headers.method {
        Ok(Some(method)) if *method == message.method => {}
        _ => return Err(EraError::Header("Mcp-Method must match the method in the body")),
    }
    if let Some(name) = called_name(message) {
        match &headers.name {
            Ok(Some(header)) if header == name => {}
            _ => return Err(EraError::Header("Mcp-Name must match params.name in the body")),
        }
    }
    if message.id.is_some() {
        match meta_version {
            Some(Value::String(name)) if name == Revision::V2026_07_28.as_str() => {}
            Some(_) => return Err(EraError::Header("MCP-Protocol-Version must match the version in _meta")),
            None => return Err(EraError::Meta("_meta lacks io.modelcontextprotocol/protocolVersion")),
        }
        if !matches!(meta.and_then(|meta| meta.get(META_CAPABILITIES)), Some(Value::Object(_))) {
            return Err(EraError::Meta("_meta lacks io.modelcontextprotocol/clientCapabilities"));
        }
    }
    Ok(Era::Modern)
}

/// Returns the name that `Mcp-Name` has to repeat. Of the methods with this header, only `tools/call` is offered.
fn called_name<'a>(message: &'a Message<'_>) -> Option<&'a str> {
    if message.method != TOOLS_CALL {
        return None;
    }
    // A missing name is rejected later, with the other parameters.
    message.params.iter().find_map(|(name, value)| if name == "name" { value.as_str() } else { None })
}

/// Returns the part of an unknown version that the error repeats.
fn truncated(name: &str) -> String {
    name.chars().take(32).collect()
}

impl EraError {
    /// Returns the JSON-RPC error code.
    pub(crate) const fn code(&self) -> i32 {
        match self {
            Self::Header(_) => -32020,
            Self::Version(_) => -32022,
            Self::Meta(_) => -32602,
        }
    }

    /// Returns `data` of the JSON-RPC error, as JSON.
    pub(crate) fn data(&self) -> Option<Vec<u8>> {
        let Self::Version(requested) = self else { return None };
        let supported = Revision::OFFERED.map(|revision| format!("\"{}\"", revision.as_str())).join(",");
        let mut data = format!("{{\"supported\":[{supported}],\"requested\":").into_bytes();
        mcp_fleet_policy::json::write_str(requested, &mut data);
        data.push(b'}');
        Some(data)
    }
}

impl Message<'_> {
    /// Returns the id; `None` for a notification.
    pub(crate) fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::gateway::request::read_message;

    const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"été","arguments":{},"_meta":{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

    fn detect(headers: &[(&'static str, &str)], body: &str) -> Result<Era, EraError> {
        let map = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect::<HeaderMap>();
        detect_era(&McpHeaders::read(&map), &read_message(body.as_bytes()).unwrap())
    }

    #[test]
    fn headers_and_body_of_a_modern_request_have_to_match() {
        let good =
            [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "=?base64?w6l0w6k=?=")];
        assert_eq!(detect(&good, MODERN), Ok(Era::Modern));
        for missing in 0..good.len() {
            let mut headers = good.to_vec();
            headers.remove(missing);
            assert!(matches!(detect(&headers, MODERN), Err(EraError::Header(_))), "without {}", good[missing].0);
        }
        let mut headers = good.to_vec();
        headers[2].1 = "other";
        assert!(matches!(detect(&headers, MODERN), Err(EraError::Header(_))));
        headers[2].1 = "=?base64?!!!?=";
        assert!(matches!(detect(&headers, MODERN), Err(EraError::Header(_))));
    }

    #[test]
    fn a_repeated_header_is_rejected() {
        let mut map = HeaderMap::new();
        map.append("mcp-protocol-version", "2026-07-28".parse().unwrap());
        map.append("mcp-protocol-version", "2025-11-25".parse().unwrap());
        let message = read_message(MODERN.as_bytes()).unwrap();
        assert!(matches!(detect_era(&McpHeaders::read(&map), &message), Err(EraError::Header(_))));
    }

    #[test]
    fn a_modern_request_needs_version_and_capabilities_in_meta() {
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
        let body =
            |meta: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{meta}}}}}"#);
        let error = |meta: &str| detect(&headers, &body(meta)).unwrap_err();
        assert!(matches!(error("{}"), EraError::Meta(_)));
        assert!(matches!(error(r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#), EraError::Meta(_)));
        assert!(matches!(error(r#"{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}"#), EraError::Header(_)));
    }

    #[test]
    fn an_unknown_revision_is_answered_with_the_offered_ones() {
        let error = detect(&[("mcp-protocol-version", "2024-11-05")], r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        let error = error.unwrap_err();
        assert_eq!(error.code(), -32022);
        let data: serde_json::Value = serde_json::from_slice(&error.data().unwrap()).unwrap();
        assert_eq!(data["supported"], serde_json::json!(["2026-07-28", "2025-11-25", "2025-06-18"]));
        assert_eq!(data["requested"], "2024-11-05");
    }

    #[test]
    fn a_header_that_contradicts_the_body_is_rejected() {
        let list = |version: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{version}}}}}}}"#
            )
        };
        let named = [("mcp-protocol-version", "2025-11-25")];
        for version in [r#""2026-07-28""#, r#""2025-06-18""#, "7", "null"] {
            let error = detect(&named, &list(version)).unwrap_err();
            assert_eq!(error.code(), -32020, "{version}");
        }
        assert_eq!(detect(&named, &list(r#""2025-11-25""#)), Ok(Era::Legacy));
    }

    #[test]
    fn a_client_may_name_any_revision_until_one_is_negotiated() {
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#;
        assert_eq!(detect(&[("mcp-protocol-version", "2025-03-26")], initialize), Ok(Era::Legacy));
    }

    #[test]
    fn a_request_is_legacy_unless_header_or_meta_say_otherwise() {
        assert_eq!(detect(&[], r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#), Ok(Era::Legacy));
        let named = [("mcp-protocol-version", "2025-06-18")];
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert_eq!(detect(&named, ping), Ok(Era::Legacy));
        assert!(matches!(detect(&[], MODERN), Err(EraError::Header(_))));
    }
}
