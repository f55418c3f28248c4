//! Checks of the request head: which server the path names, the origin, and whether it can be an MCP request.

use http::header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};
use mcp_fleet_policy::model::TenantPolicy;

/// Returns the server name in `/<server>/mcp`. Some clients add a slash at the end.
pub(crate) fn server_name(path: &str) -> Option<&str> {
    let server = path.strip_suffix('/').unwrap_or(path).strip_prefix('/')?.strip_suffix("/mcp")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (!server.is_empty() && server.len() <= 63 && server.bytes().all(plain)).then_some(server)
}

/// Returns whether a page of an origin sent the request that is neither the endpoint's nor allowed. Browsers send `Origin`,
/// agents do not.
pub(crate) fn foreign_origin(headers: &HeaderMap, policy: &TenantPolicy) -> bool {
    let is_own = |origin: &[u8]| std::str::from_utf8(origin).is_ok_and(|origin| policy.accepts_audience(origin));
    let known = |origin: &[u8]| is_own(origin) || is_allowed(origin, policy);
    headers.get_all(ORIGIN).iter().any(|origin| !known(origin.as_bytes()))
}

/// Returns the only origin of a request, if its pages may read the answer.
pub(crate) fn allowed_origin(headers: &HeaderMap, policy: &TenantPolicy) -> Option<HeaderValue> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let origin = origins.next()?;
    (origins.next().is_none() && is_allowed(origin.as_bytes(), policy)).then(|| origin.clone())
}

fn is_allowed(origin: &[u8], policy: &TenantPolicy) -> bool {
    policy.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin)
}

/// Returns whether a browser asks what the scripts of a page may send to an endpoint.
pub(crate) fn is_preflight(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) && server_name(path).is_some()
}

/// Why the head of a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// The path is not an endpoint's: 404.
    Path,
    /// Not `POST`: 405.
    Method,
    /// The body is not JSON: 415.
    ContentType,
    /// The client does not accept JSON, or an event stream as the answer to GET: 406.
    Accept,
}

/// Id of the last event that a client saw of a stream that it resumes.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Checks path and HTTP method. What fails here is not a request of MCP, whoever sent it, and reveals nothing about which
/// servers there are: clients look for documents of OAuth, or for an event stream, before they have a token.
pub(crate) fn check_target(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), HeadError> {
    if server_name(path).is_none() {
        return Err(HeadError::Path);
    }
    let resumes = *method == Method::GET && headers.contains_key(LAST_EVENT_ID) && headers.contains_key(AUTHORIZATION);
    if *method == Method::POST || resumes { Ok(()) } else { Err(HeadError::Method) }
}

/// Checks `Content-Type` and `Accept`.
pub(crate) fn check_media_types(method: &Method, headers: &HeaderMap) -> Result<(), HeadError> {
    if *method == Method::GET {
        return if accepts(headers, "text/event-stream") { Ok(()) } else { Err(HeadError::Accept) };
    }
    let json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/json")
    });
    if !json {
        return Err(HeadError::ContentType);
    }
    if !accepts(headers, "application/json") {
        return Err(HeadError::Accept);
    }
    Ok(())
}

/// Returns whether the client accepts the media type. Without an `Accept` header it accepts every type.
pub(crate) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    if !headers.contains_key(ACCEPT) {
        return true;
    }
    let main_type = media_type.split_once('/').map_or("", |(main_type, _)| main_type);
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            range == "*/*"
                || range.eq_ignore_ascii_case(media_type)
                || range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(main_type))
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_path_names_one_server_or_none() {
        assert_eq!(server_name("/files/mcp"), Some("files"));
        assert_eq!(server_name("/files/mcp/"), Some("files"));
        for path in [
            "/",
            "/mcp",
            "//mcp",
            "/files",
            "/files/mcp//",
            "/mcp/",
            "/a/b/mcp",
            "/../mcp",
            "/Files/mcp",
            "/%66iles/mcp",
        ] {
            assert_eq!(server_name(path), None, "{path}");
        }
    }

    #[test]
    fn a_client_accepts_the_types_in_its_accept_header() {
        let accepting = |accept: &str| HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        assert!(accepts(&HeaderMap::new(), "text/event-stream"));
        assert!(accepts(&accepting("application/json, text/event-stream"), "text/event-stream"));
        assert!(accepts(&accepting("*/*;q=0.1"), "text/event-stream"));
        assert!(!accepts(&accepting("application/json"), "text/event-stream"));
        assert!(!accepts(&accepting("text/html"), "application/json"));
    }
}
