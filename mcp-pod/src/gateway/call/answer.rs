//! Checks the answer of a server before it is released.
//!
//! A result passes as the server wrote it, with unknown members, if it is one JSON object that every parser reads
//! alike, but for two things that are mended ([`mend`]). Otherwise it is withheld as a whole, never repaired or cut. Two things only the gateway may say: whether a
//! result is complete (2026-07-28), and everything below `mcp-fleet.dev/` in `_meta`.

use bytes::Bytes;
use http::StatusCode;
use mcp_fleet_policy::budget::Charge;
use mcp_fleet_policy::json::{Limits, Problem, Value, parse, parse_metered, write, write_str};
use mcp_fleet_policy::price::ResultPrice;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;

use super::mend;
use crate::gateway::request::Id;
use crate::gateway::respond::{Failure, error_message, result_message, with_warning};

/// Prefix of the keys of `_meta` that no server may write.
const RESERVED_PREFIX: &str = "mcp-fleet.dev/";

/// Values for which no memory is reserved: a thread checks one answer at a time, and is done with it at once.
const FREE_VALUES: usize = 4096;

/// An answer that can be released.
#[derive(Debug)]
pub(super) struct Answer {
    /// The whole JSON-RPC message.
    pub(super) message: Vec<u8>,
    /// Result or error, as the server wrote it.
    pub(super) text: Bytes,
    /// Whether the server reported that the tool failed.
    pub(super) tool_error: bool,
    /// What the call costs.
    pub(super) charge: Charge,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A result, and whether it says itself that it is complete.
    Result {
        complete: bool,
    },
    Error,
}

impl Answer {
    /// Returns the message with a warning: as a text block and `data` in `_meta` of a result, at the end of the message of
    /// an error.
    pub(super) fn warned(self, id: &Id, modern: bool, text: &str, data: &[u8]) -> Vec<u8> {
        match self.kind {
            Kind::Result { complete } => {
                let result = with_warning(&self.text, text, data);
                complete_message(id, &result, modern && !complete)
            }
            Kind::Error => {
                let warned = check_error_with(id, self.text, u64::MAX, text, &mut |_| true);
                warned.map_or(self.message, |answer| answer.message)
            }
        }
    }
}

/// Writes the message with a result, which is marked as complete if it does not say so itself.
fn complete_message(id: &Id, result: &[u8], mark: bool) -> Vec<u8> {
    let members = result.get(1..).unwrap_or_default();
    match (mark, members.trim_ascii_start() == b"}") {
        (false, _) => result_message(id, &[result]),
        (true, true) => result_message(id, &[b"{\"resultType\":\"complete\"}"]),
        (true, false) => result_message(id, &[b"{\"resultType\":\"complete\",", members]),
    }
}

/// What a result is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'g> {
    /// Largest result that is released, in bytes.
    pub(super) limit: u64,
    /// Whether the caller speaks a modern revision.
    pub(super) modern: bool,
    /// Where the result states the price, and the most that the call costs; absent if each call costs the same.
    pub(super) price: Option<(&'g ResultPrice, Micros)>,
}

/// Checks a result. `reserve` is called for memory for more than [`FREE_VALUES`] values.
pub(super) fn check_result(
    id: &Id,
    text: Bytes,
    expected: &Expected<'_>,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Answer, Reason> {
    let Expected { limit, modern, price } = *expected;
    let value = match parse_within(&text, limit, &Limits::PASS_THROUGH, reserve) {
        Ok(value) => value,
        Err(Problem::LoneSurrogate) => {
            return check_result(id, mend::without_lone_surrogates(&text).into(), expected, reserve);
        }
        Err(problem) => return Err(reason_of(problem)),
    };
    if value.as_object().is_none() {
        return Err(Reason::UpstreamInvalid);
    }
    if mend::has_nulls(&value) {
        let mended = mend::without_nulls(&text).ok_or(Reason::UpstreamInvalid)?;
        return check_result(id, mended.into(), expected, reserve);
    }
    let complete = match value.get("resultType") {
        None => false,
        // Any other value asks the client for a follow-up that the gateway does not offer.
        Some(kind) if kind.as_str() == Some("complete") => true,
        Some(_) => return Err(Reason::UpstreamInvalid),
    };
    if let Some(meta) = value.get("_meta") {
        let keys = meta.as_object().ok_or(Reason::UpstreamInvalid)?;
        if keys.iter().any(|(key, _)| key.starts_with(RESERVED_PREFIX)) {
            return Err(Reason::UpstreamInvalid);
        }
    }
    let tool_error = value.get("isError").and_then(Value::as_bool) == Some(true);
    let charge = price.map_or(Charge::Full, |(price, most)| Charge::Stated(price.of(&value, most)));
    let message = complete_message(id, &text, modern && !complete);
    Ok(Answer { message, text, tool_error, charge, kind: Kind::Result { complete } })
}

/// Checks a JSON-RPC error of at most `limit` bytes. The message is serialized again from the parsed error.
pub(super) fn check_error(
    id: &Id,
    text: Bytes,
    limit: u64,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Answer, Reason> {
    check_error_with(id, text, limit, "", reserve)
}

/// Checks like [`check_error`], and adds a sentence to the error's message.
fn check_error_with(
    id: &Id,
    text: Bytes,
    limit: u64,
    sentence: &str,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Answer, Reason> {
    let value = match parse_within(&text, limit, &Limits::RESULT, reserve) {
        Ok(value) => value,
        Err(Problem::LoneSurrogate) => {
            return check_error_with(id, mend::without_lone_surrogates(&text).into(), limit, sentence, reserve);
        }
        Err(problem) => return Err(reason_of(problem)),
    };
    let code = value.get("code").and_then(Value::as_i64).ok_or(Reason::UpstreamInvalid)?;
    let message = value.get("message").and_then(Value::as_str).ok_or(Reason::UpstreamInvalid)?;
    let data = value.get("data").filter(|data| !matches!(data, Value::Null)).map(|data| {
        let mut out = Vec::new();
        write(data, &mut out);
        out
    });
    let message = if sentence.is_empty() { message.into() } else { format!("{message} {sentence}") };
    let failure =
        Failure { status: StatusCode::OK, code: released_code(code), message: &message, data: data.as_deref() };
    let message = error_message(Some(id), &failure);
    Ok(Answer { message, text, tool_error: true, charge: Charge::Full, kind: Kind::Error })
}

/// Returns the code under which a server's error is released. Codes with a meaning between client and gateway are not
/// passed on (MCP 2026-07-28 reserves −32020 to −32099).
fn released_code(code: i64) -> i32 {
    match code {
        -32700 | -32603..=-32600 => i32::try_from(code).unwrap_or(-32603),
        -32768..=-30000 => -32603,
        other => i32::try_from(other).unwrap_or(-32603),
    }
}

fn parse_within<'a>(
    text: &'a [u8],
    limit: u64,
    limits: &Limits,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Value<'a>, Problem> {
    if text.len() as u64 > limit {
        return Err(Problem::Memory);
    }
    parse_metered(text, limits, FREE_VALUES, reserve).map_err(|error| error.problem)
}

const fn reason_of(problem: Problem) -> Reason {
    match problem {
        Problem::Memory => Reason::ResponseTooLarge,
        _ => Reason::UpstreamInvalid,
    }
}

/// Returns a progress notification under the caller's token, or `None` if `params` are not valid. Only known members
/// are passed on.
pub(super) fn progress_notification(params: &[u8], token: &Id) -> Option<Vec<u8>> {
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
        let expected = Expected { limit: 1000, modern, price: None };
        check_result(&id(), Bytes::copy_from_slice(text.as_bytes()), &expected, &mut |_| false)
            .map(|answer| String::from_utf8(answer.message).unwrap())
    }

    #[test]
    fn a_result_passes_byte_for_byte() {
        let text = r#"{ "content" : [], "x-unknown": {"n": 1.50e2, "big": 12345678901234567890}, "isError":false }"#;
        assert_eq!(result(text, false).unwrap(), format!(r#"{{"jsonrpc":"2.0","id":7,"result":{text}}}"#));
    }

    #[test]
    fn what_says_the_same_is_mended() {
        for (text, expected) in [
            (r#"{"content":[],"_meta":null,"resultType":null}"#, r#"{"content":[]}"#),
            (r#"{"a":"\ud800"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"a":"\ud800","b":null}"#, r#"{"a":"\ufffd"}"#),
        ] {
            assert_eq!(result(text, false).unwrap(), format!(r#"{{"jsonrpc":"2.0","id":7,"result":{expected}}}"#));
        }
        let error = Bytes::from_static(br#"{"code":1,"message":"cut \ud83d","data":null}"#);
        let answer = check_error(&id(), error, 1000, &mut |_| false).unwrap();
        let message: serde_json::Value = serde_json::from_slice(&answer.message).unwrap();
        assert_eq!(message["error"], serde_json::json!({"code": 1, "message": "cut \u{fffd}"}));
    }

    #[test]
    fn every_modern_result_is_marked_complete() {
        let result_type = |text: &str| {
            let message: serde_json::Value = serde_json::from_str(&result(text, true).unwrap()).unwrap();
            message["result"]["resultType"].clone()
        };
        for text in ["{}", "{ }", r#"{"content":[]}"#, r#"{"resultType":"complete","content":[]}"#] {
            assert_eq!(result_type(text), "complete", "{text}");
        }
    }

    #[test]
    fn a_result_that_could_mislead_the_caller_is_withheld() {
        for text in [
            "[]",
            "\"text\"",
            r#"{"resultType":"input_required"}"#,
            r#"{"_meta":{"mcp-fleet.dev/denial":{"reason":"rate_limited"}}}"#,
            r#"{"_meta":{"mcp-fl\u0065et.dev/denial":{}}}"#,
            r#"{"_meta":7}"#,
            r#"{"isError":false,"isError":true}"#,
        ] {
            assert_eq!(result(text, true), Err(Reason::UpstreamInvalid), "{text}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(400), "]".repeat(400));
        assert_eq!(result(&deep, true), Err(Reason::UpstreamInvalid));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1000));
        assert_eq!(result(&long, true), Err(Reason::ResponseTooLarge));
    }

    #[test]
    fn a_servers_error_cannot_use_the_codes_of_the_gateway() {
        let code = |text: &str| {
            let answer = check_error(&id(), Bytes::copy_from_slice(text.as_bytes()), 1000, &mut |_| false).unwrap();
            let message: serde_json::Value = serde_json::from_slice(&answer.message).unwrap();
            message["error"]["code"].as_i64().unwrap()
        };
        assert_eq!(code(r#"{"code":-32602,"message":"m","data":{"a":1}}"#), -32602);
        assert_eq!(code(r#"{"code":42,"message":"m"}"#), 42);
        for reserved in [-32020, -32022, -32042, -32002, -31000] {
            assert_eq!(code(&format!(r#"{{"code":{reserved},"message":"m"}}"#)), -32603);
        }
        let wrong = Bytes::from_static(br#"{"code":"1","message":"m"}"#);
        assert!(check_error(&id(), wrong, 1000, &mut |_| false).is_err());
    }

    #[test]
    fn progress_gets_the_callers_token_and_only_known_members() {
        let token = Id::from_value(&Value::String("t".into())).unwrap();
        let written =
            progress_notification(br#"{"progressToken":99,"progress":1,"total":2.5,"message":"m","x":1}"#, &token)
                .unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1,"total":2.5,"message":"m"}}"#
        );
        assert!(progress_notification(br#"{"message":"m"}"#, &token).is_none());
    }
}
