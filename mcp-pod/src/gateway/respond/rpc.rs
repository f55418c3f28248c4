//! JSON-RPC results and errors.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use mcp_fleet_policy::json::write_str;

use super::Body;
use crate::gateway::request::Id;

/// Start of every message.
const START: &[u8] = b"{\"jsonrpc\":\"2.0\",";

/// A JSON-RPC error and its HTTP status.
#[derive(Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) status: StatusCode,
    pub(crate) code: i32,
    pub(crate) message: &'a str,
    /// `data`, as JSON.
    pub(crate) data: Option<&'a [u8]>,
}

/// Returns the answer with a result: JSON, made of the concatenated `parts`.
pub(crate) fn result(id: &Id, parts: &[&[u8]]) -> Response<Body> {
    json(StatusCode::OK, result_message(id, parts))
}

/// Writes the message with a result.
pub(crate) fn result_message(id: &Id, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + id.as_json().len() + 48);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.as_json());
    out.extend_from_slice(b",\"result\":");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(b'}');
    out
}

/// Returns the answer with an error.
pub(crate) fn error(id: Option<&Id>, failure: &Failure<'_>) -> Response<Body> {
    json(failure.status, error_message(id, failure))
}

/// Writes the message with an error. Without an id that could be read it has none: MCP has no `null` there.
pub(crate) fn error_message(id: Option<&Id>, failure: &Failure<'_>) -> Vec<u8> {
    let mut out = START.to_vec();
    if let Some(id) = id {
        write_id(id, &mut out);
    }
    out.extend_from_slice(b"\"error\":{\"code\":");
    out.extend_from_slice(failure.code.to_string().as_bytes());
    out.extend_from_slice(b",\"message\":");
    write_str(failure.message, &mut out);
    if let Some(data) = failure.data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data);
    }
    out.extend_from_slice(b"}}");
    out
}

fn write_id(id: &Id, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"id\":");
    out.extend_from_slice(id.as_json());
    out.push(b',');
}

/// Adds the id of the request to an error without one, which was made from the head of the request alone. In sessions (before
/// 2026-07-28), it then is an answer like others, with the status 200, unless it says that the endpoint or the session is not
/// known.
pub(crate) fn add_id(response: &mut Response<Body>, id: &Id, is_modern: bool) {
    let Body::Whole(bytes) = response.body() else { return };
    let Some(rest) = bytes.strip_prefix(START).filter(|rest| rest.starts_with(b"\"error\"")) else { return };
    let mut out = START.to_vec();
    write_id(id, &mut out);
    out.extend_from_slice(rest);
    *response.body_mut() = Body::Whole(out.into());
    let refused = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    if !is_modern && refused.contains(&response.status()) {
        *response.status_mut() = StatusCode::OK;
    }
}

/// Returns the answer to a notification.
pub(crate) fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// Returns the answer that consists of a message.
pub(crate) fn message(message: Vec<u8>) -> Response<Body> {
    json(StatusCode::OK, message)
}

/// Returns an answer with one JSON value.
fn json(status: StatusCode, json: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::from(json)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
