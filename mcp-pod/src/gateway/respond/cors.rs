//! Answers that scripts of allowed pages may read (Fetch Standard, CORS protocol).
//!
//! Which pages are allowed is a matter of the policy. None of this replaces the token: browsers add no credentials by
//! themselves, because no answer allows that.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderValue, Response, StatusCode};

use super::Body;

/// Headers that MCP clients send, besides those that need no permission.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, last-event-id, mcp-method, mcp-name, mcp-protocol-version, mcp-session-id, \
     traceparent, tracestate",
);
/// Headers of answers that MCP clients read, besides those that need no permission.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static("mcp-session-id, retry-after, www-authenticate");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
/// How long a browser may go on without asking again, in seconds: not much longer than a change of the policy may take to be noticed.
const MAX_AGE: HeaderValue = HeaderValue::from_static("300");

/// Lets scripts of this origin read the answer.
pub(crate) fn allow_origin(response: &mut Response<Body>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// Returns the answer to a browser that asks what scripts of an allowed origin may send.
pub(crate) fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}
