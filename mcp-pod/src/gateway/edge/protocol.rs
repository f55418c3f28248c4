//! What a gateway sends to another one with a request that it forwards. The version of this protocol is in a header: a peer of
//! another version says that it is not the home, and the edge refuses the call.

use std::net::IpAddr;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, EXPECT, HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body as _;

use super::upload::Upload;
use crate::gateway::request::route::LAST_EVENT_ID;
use crate::gateway::respond::Body;

/// Version of the protocol, on every request. Only read on connections of peers.
const FORWARDED: HeaderName = HeaderName::from_static("mcp-fleet-forwarded");
const VERSION: HeaderValue = HeaderValue::from_static("1");
/// IP address of the client, on every request.
const CLIENT: HeaderName = HeaderName::from_static("mcp-fleet-client");
/// On requests whose body the edge keeps: the home may still say that it is not the home when it has it.
const MAY_LEAVE: HeaderName = HeaderName::from_static("mcp-fleet-may-leave");
/// On answers of a gateway that is not the home. It has not asked for the body, unless the edge keeps that.
const NOT_HOME: HeaderName = HeaderName::from_static("mcp-fleet-not-home");

/// On answers to calls that the home has admitted, which its limits on calls count.
const ADMITTED: HeaderName = HeaderName::from_static("mcp-fleet-admitted");

/// The headers of a client that a gateway reads. No others are forwarded: neither those that belong to one connection (RFC 9110,
/// 7.6.1) nor those that frame the body, which each connection does for itself.
const READ: [HeaderName; 11] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    ACCEPT,
    ORIGIN,
    LAST_EVENT_ID,
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Headers of an answer that belong to its connection or frame its body.
const OF_CONNECTION: [HeaderName; 8] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::TRAILER,
    http::header::TE,
    http::header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Returns the request that is sent to the home for that of a client. `may_leave` says that the edge keeps the body.
pub(super) fn request(
    head: &Parts,
    client: IpAddr,
    body: Upload,
    may_leave: bool,
) -> Result<Request<Upload>, http::Error> {
    let expects_continue = !body.is_end_stream();
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    // What follows the path means nothing to a gateway.
    *request.uri_mut() = Uri::try_from(head.uri.path())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("gateway"));
    headers.insert(FORWARDED, VERSION);
    headers.insert(CLIENT, HeaderValue::try_from(client.to_string())?);
    if expects_continue {
        headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
    if may_leave {
        headers.insert(MAY_LEAVE, VERSION);
    }
    for name in READ {
        for value in head.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    Ok(request)
}

/// Returns the address of the client whose request a peer forwards. None if the peer speaks another version.
pub(crate) fn read_client(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get(FORWARDED).filter(|version| **version == VERSION)?;
    headers.get(CLIENT)?.to_str().ok()?.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// Returns whether the gateway that forwards a request keeps its body, for another home.
pub(crate) fn may_leave(headers: &HeaderMap) -> bool {
    headers.contains_key(MAY_LEAVE)
}

/// Returns the answer of a gateway that is not the home of the caller. Nothing has been done with the request.
pub(crate) fn not_home() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response.headers_mut().insert(NOT_HOME, VERSION);
    response
}

/// Returns whether this is the answer of a gateway that is not the home.
pub(super) fn is_not_home(headers: &HeaderMap) -> bool {
    headers.contains_key(NOT_HOME)
}

/// Removes the headers of an answer that its client must not get.
pub(super) fn strip(headers: &mut HeaderMap) {
    for name in OF_CONNECTION {
        headers.remove(name);
    }
    headers.remove(NOT_HOME);
    headers.remove(ADMITTED);
}

/// Marks the answer to a call that was admitted, for the edge.
pub(crate) fn mark_admitted(headers: &mut HeaderMap) {
    headers.insert(ADMITTED, VERSION);
}

/// Returns whether this is the answer to a call that the home has admitted.
pub(super) fn is_admitted(headers: &HeaderMap) -> bool {
    headers.contains_key(ADMITTED)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use super::*;

    fn forwarded(headers: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::post("https://gateway.acme-mcp.svc/files/mcp?token=x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let request = super::request(&head, Ipv4Addr::LOCALHOST.into(), Upload::channel(Some(3)).1, true).unwrap();
        assert_eq!(request.uri(), "/files/mcp");
        request.headers().clone()
    }

    #[test]
    fn only_headers_that_a_gateway_reads_are_forwarded() {
        let mut headers = forwarded(&[
            ("authorization", "Bearer t"),
            ("authorization", "Bearer u"),
            ("mcp-session-id", "s"),
            ("mcp-fleet-forwarded", "9"),
            ("mcp-fleet-client", "10.0.0.1"),
            ("connection", "close, mcp-session-id"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("expect", "something"),
            ("cookie", "c"),
            ("x-forwarded-for", "10.0.0.2"),
        ]);
        let mut sent: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        sent.sort();
        let expected = [
            "authorization: Bearer t",
            "authorization: Bearer u",
            "expect: 100-continue",
            "host: gateway",
            "mcp-fleet-client: 127.0.0.1",
            "mcp-fleet-forwarded: 1",
            "mcp-fleet-may-leave: 1",
            "mcp-session-id: s",
        ];
        assert_eq!(sent, expected);
        assert_eq!(read_client(&headers), Some(Ipv4Addr::LOCALHOST.into()));
        headers.insert(CLIENT, "::ffff:127.0.0.1".parse().unwrap());
        assert_eq!(read_client(&headers), Some(Ipv4Addr::LOCALHOST.into()), "it is the same address");
    }

    #[test]
    fn a_request_of_another_version_is_not_read() {
        let with = |version: &'static str, client: &'static str| {
            read_client(&HeaderMap::from_iter([
                (FORWARDED, HeaderValue::from_static(version)),
                (CLIENT, HeaderValue::from_static(client)),
            ]))
        };
        assert!(with("1", "::1").is_some());
        for (version, client) in [("2", "::1"), ("1", ""), ("1", "localhost"), ("", "::1")] {
            assert_eq!(with(version, client), None, "{version} {client}");
        }
        assert_eq!(read_client(&HeaderMap::new()), None);
    }

    #[test]
    fn an_answer_keeps_no_header_of_its_connection() {
        let mut response = not_home();
        for name in OF_CONNECTION {
            response.headers_mut().insert(name, HeaderValue::from_static("1"));
        }
        response.headers_mut().insert("mcp-session-id", HeaderValue::from_static("s"));
        mark_admitted(response.headers_mut());
        assert!(is_not_home(response.headers()) && is_admitted(response.headers()));
        strip(response.headers_mut());
        assert_eq!(response.headers().keys().collect::<Vec<_>>(), ["mcp-session-id"]);
    }
}
