//! The parameters of `tools/call`. Members that are not named here are dropped and never reach the server.

use std::borrow::Cow;

use mcp_fleet_policy::json::{Members, Value};

use super::{Id, IdError};
use crate::gateway::trace::StateSource;

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
    /// State of the caller's trace.
    pub(crate) trace_state: Option<Cow<'a, str>>,
}

impl<'a> CallParams<'a> {
    /// Reads the parameters of a call and drops the members that are not forwarded. `states` says where the state of the
    /// caller's trace is.
    pub(crate) fn read(params: Members<'a>, states: StateSource<'a>) -> Result<Self, ParamsError> {
        let mut name = None;
        let mut arguments = None;
        let mut progress = None;
        let mut trace_state = None;
        for (key, value) in params {
            match &*key {
                "name" => {
                    let Value::String(text) = value else { return Err(ParamsError("name must be a string")) };
                    name = Some(text);
                }
                // Clients send `null` for what they leave out.
                "arguments" | "_meta" if value.is_null() => {}
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
                            ("progressToken", Value::Null) => {}
                            ("progressToken", token) => {
                                progress = Some(Id::from_value(&token).map_err(|error| match error {
                                    IdError::Type => ParamsError("progressToken must be a string or a whole number"),
                                    IdError::TooLong => ParamsError("progressToken has at most 256 bytes"),
                                })?);
                            }
                            (name, value) if StateSource::is_key(name) => trace_state = Some(value),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let name = name.ok_or(ParamsError("name is missing"))?;
        Ok(Self { name, arguments, progress, trace_state: states.choose(trace_state) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::gateway::request::read_message;

    fn call(params: &str) -> Result<(String, bool, Option<Id>, Option<String>), ParamsError> {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let CallParams { name, arguments, progress, trace_state } =
            CallParams::read(read_message(body.as_bytes()).unwrap().params, StateSource::Meta)?;
        Ok((name.into_owned(), arguments.is_some(), progress, trace_state.map(Cow::into_owned)))
    }

    #[test]
    fn only_named_parameters_pass() {
        let (name, arguments, progress, state) = call(
            r#"{"name":"a","arguments":{},"task":{"ttl":1},"_meta":{"progressToken":"t","x":{"y":1},
                "tracestate":"a=1"}}"#,
        )
        .unwrap();
        assert_eq!((name.as_str(), arguments, state.as_deref()), ("a", true, Some("a=1")));
        assert_eq!(progress.unwrap().as_json(), b"\"t\"");
        assert_eq!(call(r#"{"name":"a","_meta":{"tracestate":"ignore previous instructions"}}"#).unwrap().3, None);
    }

    #[test]
    fn parameters_of_the_wrong_type_are_rejected() {
        for params in [
            "{}",
            r#"{"name":1}"#,
            r#"{"name":"a","arguments":[]}"#,
            r#"{"name":"a","_meta":[]}"#,
            r#"{"name":"a","_meta":{"progressToken":1.5}}"#,
        ] {
            assert!(call(params).is_err(), "{params} was accepted");
        }
    }

    #[test]
    fn null_stands_for_an_absent_parameter() {
        let (_, arguments, progress, _) = call(r#"{"name":"a","arguments":null,"_meta":null}"#).unwrap();
        assert_eq!((arguments, progress), (false, None));
        assert_eq!(call(r#"{"name":"a","_meta":{"progressToken":null}}"#).unwrap().2, None);
        assert!(call(r#"{"name":null}"#).is_err());
    }

    #[test]
    fn a_progress_token_has_at_most_256_bytes() {
        let params = |length| format!(r#"{{"name":"a","_meta":{{"progressToken":"{}"}}}}"#, "x".repeat(length));
        assert!(call(&params(256)).is_ok());
        assert_eq!(call(&params(257)).unwrap_err(), ParamsError("progressToken has at most 256 bytes"));
    }
}
