//! Refusals that a machine and a model can act on.
//!
//! A model sees only the text of an error, and only the code around it sees headers and `_meta`: so a refused call is
//! a result with `isError` whose text says it all, and the same stands in `_meta` as data.

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use mcp_fleet_policy::denial::{Denial, whole_seconds};
use mcp_fleet_policy::json::write_str;
use mcp_fleet_policy::reason::Reason;

use super::{Body, Failure, rpc};
use crate::gateway::request::Id;

/// The JSON-RPC code of a request that policy refuses where there is no tool result to say it in: outside of what
/// JSON-RPC and MCP keep for themselves.
pub(crate) const DENIED: i32 = -31000;

/// The result of a call that was refused, or failed.
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

/// The answer to a request other than a call that policy refuses.
pub(crate) fn denied_request(id: Option<&Id>, status: StatusCode, denial: &Denial) -> Response<Body> {
    let mut data = Vec::new();
    denial.write_data(&mut data);
    let failure = Failure { status, code: DENIED, message: &denial.text(), data: Some(&data) };
    let mut response = rpc::error(id, &failure);
    if let Some(after) = denial.retry_after
        && !status.is_success()
        && let Ok(value) = HeaderValue::from_str(&whole_seconds(after).to_string())
    {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// 401 as RFC 6750 has it: no error code where no token was sent.
pub(crate) fn unauthorised(reason: Reason) -> Response<Body> {
    let challenge = match reason {
        Reason::TokenMissing => HeaderValue::from_static("Bearer"),
        _ => HeaderValue::from_str(&format!(
            "Bearer error=\"invalid_token\", error_description=\"{}: {}\"",
            reason.as_str(),
            // A quoted string must not end early (RFC 9110, 5.6.4).
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
    fn a_challenge_can_be_written_for_every_reason_of_authentication() {
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
    fn a_refused_call_says_the_same_in_text_and_in_data() {
        let denial = Denial::new(Reason::RateLimited).with_limit("60 calls a minute");
        let result: serde_json::Value = serde_json::from_slice(&denied_call(&denial, true)).unwrap();
        assert_eq!(result["isError"], true);
        assert_eq!(result["resultType"], "complete");
        assert_eq!(result["content"][0]["text"], denial.text());
        assert_eq!(result["_meta"]["mcp-fleet.dev/denial"]["reason"], "rate_limited");
    }
}
