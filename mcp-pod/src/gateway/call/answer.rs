//! What a server answered, checked before it is released.
//!
//! A result passes as the server wrote it, unknown members and all, if it is one JSON object that every parser reads
//! alike; it is refused as a whole otherwise, never repaired or cut. Two things are ours alone to say: whether a
//! result is complete (2026-07-28), and everything below `mcp-fleet.dev/` in `_meta`.

use bytes::Bytes;
use http::StatusCode;
use mcp_fleet_policy::json::{Limits, Value, parse, write, write_str};
use mcp_fleet_policy::reason::Reason;

use crate::gateway::request::Id;
use crate::gateway::respond::{Failure, error_message, result_message};

/// Keys of `_meta` that no server may write.
const RESERVED: &str = "mcp-fleet.dev/";

/// An answer that can be released.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The whole JSON-RPC message.
    pub(crate) message: Vec<u8>,
    /// What the server wrote.
    pub(crate) text: Bytes,
    /// Whether the server said that the tool failed.
    pub(crate) tool_error: bool,
}

/// Checks a result.
pub(crate) fn checked_result(id: &Id, text: Bytes, limit: u64, modern: bool) -> Result<Answer, Reason> {
    let value = checked(&text, limit, &Limits::PASSED)?;
    let Value::Object(members) = &value else { return Err(Reason::UpstreamInvalid) };
    let complete = match value.get("resultType") {
        None => false,
        // Anything else asks the client to go on with a server that cannot be spoken to in this way.
        Some(kind) if kind.as_str() == Some("complete") => true,
        Some(_) => return Err(Reason::UpstreamInvalid),
    };
    if let Some(meta) = value.get("_meta") {
        let keys = meta.as_object().ok_or(Reason::UpstreamInvalid)?;
        if keys.iter().any(|(key, _)| key.starts_with(RESERVED)) {
            return Err(Reason::UpstreamInvalid);
        }
    }
    let tool_error = value.get("isError").and_then(Value::as_bool) == Some(true);
    let message = match (modern && !complete, members.is_empty()) {
        (false, _) => result_message(id, &[&text]),
        (true, true) => result_message(id, &[b"{\"resultType\":\"complete\"}"]),
        (true, false) => result_message(id, &[b"{\"resultType\":\"complete\",", text.get(1..).unwrap_or_default()]),
    };
    Ok(Answer { message, text, tool_error })
}

/// Checks a JSON-RPC error, and writes it anew.
pub(crate) fn checked_error(id: &Id, text: Bytes, limit: u64) -> Result<Answer, Reason> {
    let value = checked(&text, limit, &Limits::RESULT)?;
    let code = value.get("code").and_then(Value::as_i64).ok_or(Reason::UpstreamInvalid)?;
    let message = value.get("message").and_then(Value::as_str).ok_or(Reason::UpstreamInvalid)?;
    let data = value.get("data").map(|data| {
        let mut out = Vec::new();
        write(data, &mut out);
        out
    });
    let failure = Failure { status: StatusCode::OK, code: released(code), message, data: data.as_deref() };
    let message = error_message(Some(id), &failure);
    Ok(Answer { message, text, tool_error: true })
}

/// The code under which a server's error is released: those that have a meaning between client and gateway are not
/// the server's to use (MCP 2026-07-28 reserves −32020 to −32099).
fn released(code: i64) -> i32 {
    match code {
        -32700 | -32603..=-32600 => i32::try_from(code).unwrap_or(-32603),
        -32768..=-30000 => -32603,
        other => i32::try_from(other).unwrap_or(-32603),
    }
}

fn checked<'a>(text: &'a [u8], limit: u64, limits: &Limits) -> Result<Value<'a>, Reason> {
    if text.len() as u64 > limit {
        return Err(Reason::ResponseTooLarge);
    }
    parse(text, limits).map_err(|_| Reason::UpstreamInvalid)
}

/// A progress notification for the caller, written anew under its own token; `None` if it is not one.
pub(crate) fn progress(params: &[u8], token: &Id) -> Option<Vec<u8>> {
    let value = parse(params, &Limits::REQUEST).ok()?;
    let number = |name: &str| value.get(name).filter(|value| matches!(value, Value::Integer(_) | Value::Number(_)));
    let mut out = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":".to_vec();
    out.extend_from_slice(token.as_json());
    out.extend_from_slice(b",\"progress\":");
    write(number("progress")?, &mut out);
    if let Some(total) = number("total") {
        out.extend_from_slice(b",\"total\":");
        write(total, &mut out);
    }
    if let Some(message) = value.get("message").and_then(Value::as_str) {
        out.extend_from_slice(b",\"message\":");
        write_str(message, &mut out);
    }
    out.extend_from_slice(b"}}");
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id() -> Id {
        Id::from_value(&Value::Integer(7)).unwrap()
    }

    fn result(text: &str, modern: bool) -> Result<String, Reason> {
        checked_result(&id(), Bytes::copy_from_slice(text.as_bytes()), 1000, modern)
            .map(|answer| String::from_utf8(answer.message).unwrap())
    }

    #[test]
    fn a_result_passes_byte_for_byte() {
        let text = r#"{ "content" : [], "x-unknown": {"n": 1.50e2, "big": 12345678901234567890}, "isError":false }"#;
        assert_eq!(result(text, false).unwrap(), format!(r#"{{"jsonrpc":"2.0","id":7,"result":{text}}}"#));
    }

    #[test]
    fn a_modern_result_says_that_it_is_complete() {
        let said = |text: &str| {
            let message: serde_json::Value = serde_json::from_str(&result(text, true).unwrap()).unwrap();
            message["result"]["resultType"].clone()
        };
        for text in ["{}", "{ }", r#"{"content":[]}"#, r#"{"resultType":"complete","content":[]}"#] {
            assert_eq!(said(text), "complete", "{text}");
        }
    }

    #[test]
    fn a_result_that_could_mislead_is_withheld() {
        for text in [
            "[]",
            "\"text\"",
            r#"{"resultType":"input_required"}"#,
            r#"{"_meta":{"mcp-fleet.dev/denial":{"reason":"rate_limited"}}}"#,
            r#"{"_meta":{"mcp-fl\u0065et.dev/denial":{}}}"#,
            r#"{"_meta":7}"#,
            r#"{"isError":false,"isError":true}"#,
            r#"{"a":"\ud800"}"#,
        ] {
            assert_eq!(result(text, true), Err(Reason::UpstreamInvalid), "{text}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(400), "]".repeat(400));
        assert_eq!(result(&deep, true), Err(Reason::UpstreamInvalid));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1000));
        assert_eq!(result(&long, true), Err(Reason::ResponseTooLarge));
    }

    #[test]
    fn a_servers_error_cannot_speak_for_the_gateway() {
        let code = |text: &str| {
            let answer = checked_error(&id(), Bytes::copy_from_slice(text.as_bytes()), 1000).unwrap();
            let message: serde_json::Value = serde_json::from_slice(&answer.message).unwrap();
            message["error"]["code"].as_i64().unwrap()
        };
        assert_eq!(code(r#"{"code":-32602,"message":"m","data":{"a":1}}"#), -32602);
        assert_eq!(code(r#"{"code":42,"message":"m"}"#), 42);
        for own in [-32020, -32022, -32042, -32002, -31000] {
            assert_eq!(code(&format!(r#"{{"code":{own},"message":"m"}}"#)), -32603);
        }
        assert!(checked_error(&id(), Bytes::from_static(br#"{"code":"1","message":"m"}"#), 1000).is_err());
    }

    #[test]
    fn progress_is_written_anew() {
        let token = Id::from_value(&Value::String("t".into())).unwrap();
        let written =
            progress(br#"{"progressToken":99,"progress":1,"total":2.5,"message":"m","x":1}"#, &token).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1,"total":2.5,"message":"m"}}"#
        );
        assert!(progress(br#"{"message":"m"}"#, &token).is_none());
    }
}
