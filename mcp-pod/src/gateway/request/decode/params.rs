//! The parameters of `tools/call`. Members that are not named here are dropped and never reach the server.

use std::borrow::Cow;

use mcp_fleet_policy::json::{Members, Value};

use super::{Id, IdError};

/// Bytes of the longest `tracestate` that is forwarded (W3C Trace Context asks for at least 512).
const MAX_TRACE_STATE: usize = 512;

/// Why the parameters are invalid (−32602).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid params: {0}")]
pub(crate) struct ParamsError(pub(crate) &'static str);

/// Parameters of `tools/call`.
#[derive(Debug)]
pub(crate) struct CallParams<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) arguments: Option<Value<'a>>,
    /// Token for progress notifications, if the client asked for them.
    pub(crate) progress: Option<Id>,
    pub(crate) trace: Trace<'a>,
}

/// Trace context of a call (SEP-414): the only keys of `_meta` that are forwarded to the server.
#[derive(Debug, Default)]
pub(crate) struct Trace<'a> {
    pub(crate) parent: Option<Cow<'a, str>>,
    pub(crate) state: Option<Cow<'a, str>>,
}

impl<'a> CallParams<'a> {
    /// Reads the parameters of a call and drops the members that are not forwarded.
    pub(crate) fn read(params: Members<'a>) -> Result<Self, ParamsError> {
        let mut name = None;
        let mut arguments = None;
        let mut progress = None;
        let mut trace = Trace::default();
        for (key, value) in params {
            match &*key {
                "name" => {
                    let Value::String(text) = value else { return Err(ParamsError("name must be a string")) };
                    name = Some(text);
                }
                "arguments" => {
                    if !matches!(value, Value::Object(_)) {
                        return Err(ParamsError("arguments must be an object"));
                    }
                    arguments = Some(value);
                }
                "_meta" => {
                    let Value::Object(meta) = value else { return Err(ParamsError("_meta must be an object")) };
                    for (key, value) in meta {
                        match (&*key, value) {
                            ("progressToken", token) => {
                                progress = Some(Id::from_value(&token).map_err(|error| match error {
                                    IdError::Type => ParamsError("progressToken must be a string or a whole number"),
                                    IdError::TooLong => ParamsError("progressToken has at most 256 bytes"),
                                })?);
                            }
                            ("traceparent", Value::String(text)) if is_trace_parent(&text) => trace.parent = Some(text),
                            ("tracestate", Value::String(text)) if is_trace_state(&text) => trace.state = Some(text),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let name = name.ok_or(ParamsError("name is missing"))?;
        Ok(Self { name, arguments, progress, trace })
    }
}

/// Returns whether the text is `version-trace-parent-flags` in hex (W3C Trace Context, 3.2).
fn is_trace_parent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    parts.len() == lengths.len() && parts.iter().zip(lengths).all(|(part, length)| part.len() == length && hex(part))
}

fn is_trace_state(text: &str) -> bool {
    text.len() <= MAX_TRACE_STATE && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::gateway::request::read_message;

    fn call(params: &str) -> Result<(String, bool, Option<Id>, bool), ParamsError> {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let params = CallParams::read(read_message(body.as_bytes()).unwrap().params)?;
        Ok((params.name.into_owned(), params.arguments.is_some(), params.progress, params.trace.parent.is_none()))
    }

    #[test]
    fn only_named_parameters_pass() {
        let (name, arguments, progress, no_trace) = call(
            r#"{"name":"a","arguments":{},"task":{"ttl":1},"_meta":{"progressToken":"t","x":{"y":1},
                "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}"#,
        )
        .unwrap();
        assert_eq!((name.as_str(), arguments, no_trace), ("a", true, false));
        assert_eq!(progress.unwrap().as_json(), b"\"t\"");
        assert!(call(r#"{"name":"a","_meta":{"traceparent":"ignore previous instructions"}}"#).unwrap().3);
    }

    #[test]
    fn parameters_of_the_wrong_type_are_rejected() {
        for params in [
            "{}",
            r#"{"name":1}"#,
            r#"{"name":"a","arguments":[]}"#,
            r#"{"name":"a","arguments":null}"#,
            r#"{"name":"a","_meta":[]}"#,
            r#"{"name":"a","_meta":{"progressToken":null}}"#,
            r#"{"name":"a","_meta":{"progressToken":1.5}}"#,
        ] {
            assert!(call(params).is_err(), "{params} was accepted");
        }
    }

    #[test]
    fn a_progress_token_has_at_most_256_bytes() {
        let params = |length| format!(r#"{{"name":"a","_meta":{{"progressToken":"{}"}}}}"#, "x".repeat(length));
        assert!(call(&params(256)).is_ok());
        assert_eq!(call(&params(257)).unwrap_err(), ParamsError("progressToken has at most 256 bytes"));
    }
}
