//! Denials that a program and a model can act on.
//!
//! A model sees only the text of a result; the program around it sees headers and `_meta`. A denied call is therefore a
//! result with `isError` whose text says everything, and `_meta` holds the same as data.

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use mcp_fleet_policy::denial::{Denial, ceil_seconds};
use mcp_fleet_policy::json::write_str;
use mcp_fleet_policy::reason::Reason;

use super::{Body, Failure, rpc};
use crate::gateway::request::Id;

/// JSON-RPC code of a denied request that is not a tool call. It lies outside the ranges that JSON-RPC and MCP reserve.
const DENIED: i32 = -31000;

/// Writes the result of a call that was denied or failed.
pub(crate) fn denied_call(denial: &Denial, modern: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    if modern {
        out.extend_from_slice(b"\"resultType\":\"complete\",");
    }
    out.extend_from_slice(b"\"content\":[{\"type\":\"text\",\"text\":");
    write_str(&denial.text(), &mut out);
    out.extend_from_slice(b"}],\"isError\":true,\"_meta\":{\"mcp-fleet.dev/denial\":");
    denial.write_data(&mut out);
    out.extend_from_slice(b"}}");
    out
}

/// Returns the answer to a denied request that is not a tool call.
pub(crate) fn denied_request(id: Option<&Id>, status: StatusCode, denial: &Denial) -> Response<Body> {
    let mut data = Vec::new();
    denial.write_data(&mut data);
    let failure = Failure { status, code: DENIED, message: &denial.text(), data: Some(&data) };
    let mut response = rpc::error(id, &failure);
    if let Some(after) = denial.retry_after
        && !status.is_success()
        && let Ok(value) = HeaderValue::from_str(&ceil_seconds(after).to_string())
    {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// Returns a 401 according to RFC 6750: without an error code if no token was sent.
pub(crate) fn unauthorised(reason: Reason) -> Response<Body> {
    let challenge = match reason {
        Reason::TokenMissing => HeaderValue::from_static("Bearer"),
        _ => HeaderValue::from_str(&format!(
            "Bearer error=\"invalid_token\", error_description=\"{}: {}\"",
            reason.as_str(),
            // The hint must not end the quoted string (RFC 9110, 5.6.4).
            reason.hint().replace(['"', '\\', '`'], "'")
        ))
        .unwrap_or_else(|_| HeaderValue::from_static("Bearer error=\"invalid_token\"")),
    };
    let mut response = denied_request(None, StatusCode::UNAUTHORIZED, &Denial::new(reason));
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_reason_gives_a_valid_challenge() {
        for reason in Reason::ALL {
            let response = unauthorised(*reason);
            let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            match reason {
                Reason::TokenMissing => assert_eq!(challenge, "Bearer"),
                _ => assert!(challenge.contains(reason.as_str()) && challenge.ends_with('"'), "{challenge}"),
            }
        }
    }

    #[test]
    fn a_denied_call_says_the_same_in_text_and_in_data() {
        let denial = Denial::new(Reason::RateLimited).with_limit("60 calls a minute");
        let result: serde_json::Value = serde_json::from_slice(&denied_call(&denial, true)).unwrap();
        assert_eq!(result["isError"], true);
        assert_eq!(result["resultType"], "complete");
        assert_eq!(result["content"][0]["text"], denial.text());
        assert_eq!(result["_meta"]["mcp-fleet.dev/denial"]["reason"], "rate_limited");
    }
}
