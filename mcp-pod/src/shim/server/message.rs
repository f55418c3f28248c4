//! What one line of the server means, as JSON-RPC 2.0 and MCP 2025-11-25 see it from the client's side.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Ids of the server's own requests are echoed, and therefore bounded.
const MAX_ID: usize = 256;

/// A line that is JSON-RPC.
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// The answer to one of our requests.
    Response { id: u64, outcome: Outcome<'a> },
    /// An answer with an id that we never gave.
    Stray,
    /// `notifications/progress` with one of our tokens.
    Progress { token: u64, params: &'a RawValue },
    /// A request of the server; its id as written.
    Request { id: &'a RawValue, ping: bool },
    /// Any other notification.
    Notification,
}

/// The two kinds of answer, as written.
#[derive(Debug)]
pub(super) enum Outcome<'a> {
    Result(&'a RawValue),
    Error(&'a RawValue),
    /// Neither, both, or not an object.
    Invalid,
}

/// Not one JSON-RPC message.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the line as a JSON-RPC message")]
pub(super) struct Garbage;

/// The members that mean something; a second one of the same name, in whatever spelling, is an error. Others pass.
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

/// Reads one line.
pub(super) fn read(line: &[u8]) -> Result<Message<'_>, Garbage> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| Garbage)?;
    if line.jsonrpc != "2.0" {
        return Err(Garbage);
    }
    let Some(method) = line.method else {
        return response(line.id, line.result, line.error);
    };
    if line.result.is_some() || line.error.is_some() {
        return Err(Garbage);
    }
    match line.id {
        Some(id) if id.get().len() <= MAX_ID && is_id(id) => Ok(Message::Request { id, ping: method == "ping" }),
        Some(_) => Err(Garbage),
        None if method == "notifications/progress" => Ok(progress(line.params)),
        None => Ok(Message::Notification),
    }
}

fn response<'a>(
    id: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
) -> Result<Message<'a>, Garbage> {
    let id = id.ok_or(Garbage)?;
    let Some(id) = number(id) else { return Ok(Message::Stray) };
    let outcome = match (result, error) {
        (Some(result), None) if is_object(result) => Outcome::Result(result),
        (None, Some(error)) if is_object(error) => Outcome::Error(error),
        _ => Outcome::Invalid,
    };
    Ok(Message::Response { id, outcome })
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

/// The params of a progress notification without our token, on one line.
pub(super) fn without_token(params: &RawValue) -> Option<String> {
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(params.get()).ok()?;
    members.remove("progressToken");
    serde_json::to_string(&members).ok()
}

/// Our ids are written back as we wrote them: decimal digits. Anything else is not ours.
fn number(raw: &RawValue) -> Option<u64> {
    let text = raw.get();
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
        match read(line.as_bytes()) {
            Err(Garbage) => "garbage".to_owned(),
            Ok(Message::Stray) => "stray".to_owned(),
            Ok(Message::Notification) => "notification".to_owned(),
            Ok(Message::Progress { token, params }) => format!("progress {token} {}", without_token(params).unwrap()),
            Ok(Message::Request { id, ping }) => format!("request {id} {ping}"),
            Ok(Message::Response { id, outcome: Outcome::Result(raw) }) => format!("result {id} {raw}"),
            Ok(Message::Response { id, outcome: Outcome::Error(raw) }) => format!("error {id} {raw}"),
            Ok(Message::Response { id, outcome: Outcome::Invalid }) => format!("invalid {id}"),
        }
    }

    #[test]
    fn answers_need_one_outcome_and_an_id_of_ours() {
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a": 1.0}}"#, r#"result 7 {"a": 1.0}"#),
            (r#"{"result":{},"jsonrpc":"2.0","id":7}"#, "result 7 {}"),
            (r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}"#, r#"error 7 {"code":-1,"message":"no"}"#),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"extra":1}"#, "result 7 {}"),
            (r#"{"jsonrpc":"2.0","id":7}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":7,"result":[]}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":7,"result":null}"#, "invalid 7"),
            (r#"{"jsonrpc":"2.0","id":"7","result":{}}"#, "stray"),
            (r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#, "stray"),
            (r#"{"jsonrpc":"2.0","id":7,"id":7,"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","id":7,"\u0069d":8,"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"1.0","id":7,"result":{}}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","result":{}}"#, "garbage"),
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
    fn what_the_server_says_of_itself_is_told_apart() {
        for (line, expected) in [
            (r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#, "request \"a\" true"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#, "request 1 false"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "garbage"),
            (r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#, "notification"),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3,"progress":0.5}}"#,
                r#"progress 3 {"progress":0.5}"#,
            ),
            (r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"3"}}"#, "notification"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "garbage"),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
    }
}
