//! Parses one line of the server as a message to the client (JSON-RPC 2.0, MCP 2025-11-25).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest id, in bytes, of the server's own requests. The shim echoes these ids.
const MAX_ID: usize = 256;

/// A JSON-RPC message from the server.
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// A response with an id that may be one of ours.
    Response { id: u64, response: Response<'a> },
    /// A response with an id that cannot be ours, which this is as written; `null` if there is none.
    Stray { id: &'a str },
    /// `notifications/progress` with a token that may be one of ours.
    Progress { token: u64, params: &'a RawValue },
    /// A request by the server, with its id as written.
    Request { id: &'a RawValue, ping: bool },
    /// `notifications/tools/list_changed`.
    ToolsChanged,
    /// Any other notification.
    Notification,
}

/// The payload of a response, as the server wrote it.
#[derive(Debug)]
pub(super) enum Response<'a> {
    Result(&'a RawValue),
    Error(&'a RawValue),
    /// Neither a result nor an error, or both, or not an object.
    Invalid,
}

/// The line is not exactly one JSON-RPC message.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse the line as a JSON-RPC message")]
pub(in crate::shim::server) struct NotJsonRpc;

/// The known members. A duplicate of one is an error, also if it is spelled with escapes. Other members are ignored.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// What some programs on Windows write before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Parses one line.
pub(super) fn parse(line: &[u8]) -> Result<Message<'_>, NotJsonRpc> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| NotJsonRpc)?;
    if line.jsonrpc != "2.0" {
        return Err(NotJsonRpc);
    }
    let Some(method) = line.method else {
        return response(line.id, line.result, line.error);
    };
    if line.result.is_some() || line.error.is_some() {
        return Err(NotJsonRpc);
    }
    match line.id {
        Some(id) if id.get().len() <= MAX_ID && is_id(id) => Ok(Message::Request { id, ping: method == "ping" }),
        Some(_) => Err(NotJsonRpc),
        None if method == "notifications/progress" => Ok(progress(line.params)),
        None if method == "notifications/tools/list_changed" => Ok(Message::ToolsChanged),
        None => Ok(Message::Notification),
    }
}

fn response<'a>(
    id: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
) -> Result<Message<'a>, NotJsonRpc> {
    let Some(id) = id else {
        // An answer with the id null, which says that the request could not be read.
        return if result.is_some() || error.is_some() { Ok(Message::Stray { id: "null" }) } else { Err(NotJsonRpc) };
    };
    let Some(id) = number(id) else { return Ok(Message::Stray { id: id.get() }) };
    let response = match (result, error) {
        (Some(result), None) if is_object(result) => Response::Result(result),
        (None, Some(error)) if is_object(error) => Response::Error(error),
        _ => Response::Invalid,
    };
    Ok(Message::Response { id, response })
}

fn progress(params: Option<&RawValue>) -> Message<'_> {
    #[derive(Deserialize)]
    struct Token<'a> {
        #[serde(borrow, rename = "progressToken")]
        token: &'a RawValue,
    }
    let token = params.and_then(|params| serde_json::from_str::<Token<'_>>(params.get()).ok());
    match (params, token.and_then(|token| number(token.token))) {
        (Some(params), Some(token)) => Message::Progress { token, params },
        _ => Message::Notification,
    }
}

/// Returns the params of a progress notification without the token, on one line.
pub(super) fn without_token(params: &RawValue) -> Option<String> {
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(params.get()).ok()?;
    members.remove("progressToken");
    serde_json::to_string(&members).ok()
}

/// Parses an id of ours: decimal digits without a leading zero. A server has to return an id as it was sent, but some return it as a
/// string or as a float, and no other request has the same number.
fn number(raw: &RawValue) -> Option<u64> {
    let text = raw.get();
    let text = match text.strip_prefix('"') {
        Some(text) => text.strip_suffix('"')?,
        None => text.split_once('.').map_or(Some(text), |(text, zeros)| {
            (!zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0')).then_some(text)
        })?,
    };
    let number = text.parse().ok()?;
    (text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))).then_some(number)
}

fn is_id(raw: &RawValue) -> bool {
    raw.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn kind(line: &str) -> String {
        match parse(line.as_bytes()) {
            Err(NotJsonRpc) => "garbage".to_owned(),
            Ok(Message::Stray { id }) => format!("stray {id}"),
            Ok(Message::Notification) => "notification".to_owned(),
            Ok(Message::ToolsChanged) => "tools changed".to_owned(),
            Ok(Message::Progress { token, params }) => format!("progress {token} {}", without_token(params).unwrap()),
            Ok(Message::Request { id, ping }) => format!("request {id} {ping}"),
            Ok(Message::Response { id, response: Response::Result(raw) }) => format!("result {id} {raw}"),
            Ok(Message::Response { id, response: Response::Error(raw) }) => format!("error {id} {raw}"),
            Ok(Message::Response { id, response: Response::Invalid }) => format!("invalid {id}"),
        }
    }

    #[test]
    fn a_response_has_one_of_result_and_error_and_an_id_of_ours() {
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a": 1.0}}"#, r#"result 7 {"a": 1.0}"#),
            (r#"{"result":{},"jsonrpc":"2.0","id":7}"#, "result 7 {}"),
            (r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}"#, r#"error 7 {"code":-1,"message":"no"}"#),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"extra":1}"#, "result 7 {}"),
            (r#"{"jsonrpc":"2.0","id":7}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":7,"result":[]}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":7,"result":null}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, "result 7 {}"),
            (r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#, "result 7 {}"),
            (r#"{"jsonrpc":"2.0","id":7.5,"result":{}}"#, "stray 7.5"),
            (r#"{"jsonrpc":"2.0","id":7e0,"result":{}}"#, "stray 7e0"),
            (r#"{"jsonrpc":"2.0","id":"07","result":{}}"#, r#"stray "07""#),
            (r#"{"jsonrpc":"2.0","id":"\u0037","result":{}}"#, r#"stray "\u0037""#),
            (r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, "stray null"),
            ("\u{feff}{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}", "result 7 {}"),
            (r#"{"jsonrpc":"2.0","id":7,"id":7,"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","id":7,"\u0069d":8,"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"1.0","id":7,"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","result":{}}"#, "stray null"),
            (r#"{"jsonrpc":"2.0"}"#, "garbage"),
            (r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#, "garbage"),
            (r#"{"jsonrpc":"2.0","id":7,"result":{}} {}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":tru}}"#, "garbage"),
            ("Server started", "garbage"),
            ("", "garbage"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }

    #[test]
    fn requests_and_notifications_of_the_server_are_told_apart() {
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#, "request \"a\" true"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#, "request 1 false"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#, "notification"),
            (r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#, "tools changed"),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3,"progress":0.5}}"#,
                r#"progress 3 {"progress":0.5}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"three"}}"#,
                "notification",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "garbage"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }
}
