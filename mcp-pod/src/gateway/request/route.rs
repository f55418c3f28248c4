//! Which server a path means, and whether a request can be MCP at all, from its head.

use http::header::{ACCEPT, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, Method};

/// The server of `/<server>/mcp`.
pub(crate) fn server(path: &str) -> Option<&str> {
    let server = path.strip_prefix('/')?.strip_suffix("/mcp")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (!server.is_empty() && server.len() <= 63 && server.bytes().all(plain)).then_some(server)
}

/// Whether the request comes from a page of another origin: browsers say so, agents say nothing.
pub(crate) fn foreign_origin(headers: &HeaderMap, audience: &str) -> bool {
    headers.get_all(ORIGIN).iter().any(|origin| origin.as_bytes() != audience.as_bytes())
}

/// What is wrong with the head of a request to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// 405.
    Method,
    /// 415.
    ContentType,
    /// 406.
    Accept,
}

/// Checks method, content type and what the client takes.
pub(crate) fn check_head(method: &Method, headers: &HeaderMap) -> Result<(), HeadError> {
    if *method != Method::POST {
        return Err(HeadError::Method);
    }
    let json = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    });
    if !json {
        return Err(HeadError::ContentType);
    }
    if !accepts(headers, "application/json") {
        return Err(HeadError::Accept);
    }
    Ok(())
}

/// Whether the client takes that media type; all, if it does not say.
pub(crate) fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    if !headers.contains_key(ACCEPT) {
        return true;
    }
    let general = kind.split_once('/').map_or("", |(general, _)| general);
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            range == "*/*"
                || range.eq_ignore_ascii_case(kind)
                || range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(general))
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_path_names_one_server_or_none() {
        assert_eq!(server("/files/mcp"), Some("files"));
        for path in ["/", "/mcp", "//mcp", "/files", "/files/mcp/", "/a/b/mcp", "/../mcp", "/Files/mcp", "/%66iles/mcp"]
        {
            assert_eq!(server(path), None, "{path}");
        }
    }

    #[test]
    fn only_the_endpoints_own_origin_passes() {
        let mut headers = HeaderMap::new();
        assert!(!foreign_origin(&headers, "https://gateway.acme-mcp.svc"));
        headers.insert(ORIGIN, "https://gateway.acme-mcp.svc".parse().unwrap());
        assert!(!foreign_origin(&headers, "https://gateway.acme-mcp.svc"));
        headers.append(ORIGIN, "https://evil.example".parse().unwrap());
        assert!(foreign_origin(&headers, "https://gateway.acme-mcp.svc"));
    }

    #[test]
    fn a_client_takes_what_its_accept_header_says() {
        let taking = |accept: &str| HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        assert!(accepts(&HeaderMap::new(), "text/event-stream"));
        assert!(accepts(&taking("application/json, text/event-stream"), "text/event-stream"));
        assert!(accepts(&taking("*/*;q=0.1"), "text/event-stream"));
        assert!(!accepts(&taking("application/json"), "text/event-stream"));
        assert!(!accepts(&taking("text/html"), "application/json"));
    }
}
