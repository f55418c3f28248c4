//! Counts the requests to the API server, by verb and resource.

use std::sync::LazyLock;

use http::{Method, Request, Uri};
use prometheus::{IntCounterVec, Opts};

/// `mcp_fleet_api_requests_total`. It cannot be created if its name or labels are malformed, which a test excludes.
static REQUESTS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| new_counter().ok());

/// Creates a counter of requests.
pub(crate) fn new_counter() -> prometheus::Result<IntCounterVec> {
    let opts = Opts::new("mcp_fleet_api_requests_total", "Requests to the API server by verb and resource");
    IntCounterVec::new(opts, &["verb", "resource"])
}

/// Returns the counter of all requests that this process sent.
pub(crate) fn counter() -> Option<IntCounterVec> {
    REQUESTS.clone()
}

/// Returns whether the request for a URI is a watch.
pub(super) fn is_watch(uri: &Uri) -> bool {
    watches(uri.query().unwrap_or_default())
}

fn watches(query: &str) -> bool {
    query.split('&').any(|parameter| parameter == "watch=true")
}

/// Counts a request and returns it unchanged.
pub(super) fn count<B>(request: Request<B>) -> Request<B> {
    let (verb, resource) = classify(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
    if let Some(requests) = &*REQUESTS {
        requests.with_label_values(&[verb, &resource]).inc();
    }
    request
}

/// Returns the verb, as RBAC names it, and the resource with its subresource.
fn classify<'p>(method: &Method, path: &'p str, query: &str) -> (&'static str, String) {
    let mut parts = path.trim_start_matches('/').split('/');
    // After `api/v1` or `apis/group/version`.
    let prefix = if parts.next() == Some("api") { 1 } else { 2 };
    let parts: Vec<&'p str> = parts.skip(prefix).collect();
    let parts = match parts.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let resource = match parts {
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
        [resource, ..] => (*resource).to_owned(),
        [] => String::new(),
    };
    let verb = match *method {
        Method::GET if watches(query) => "watch",
        Method::GET if parts.len() == 1 => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(method: &Method, path: &str, query: &str) -> String {
        let (verb, resource) = classify(method, path, query);
        format!("{verb} {resource}")
    }

    #[test]
    fn requests_are_counted_by_verb_and_resource() {
        for (method, path, query, expected) in [
            (Method::GET, "/api/v1/namespaces/acme/secrets/coder", "", "get secrets"),
            (Method::GET, "/api/v1/namespaces/acme", "", "get namespaces"),
            (Method::GET, "/api/v1/namespaces", "", "list namespaces"),
            (Method::GET, "/apis/mcp-fleet.dev/v1alpha1/mcpservers", "limit=5&watch=true", "watch mcpservers"),
            (Method::POST, "/apis/apps/v1/namespaces/acme/deployments", "", "create deployments"),
            (Method::PUT, "/apis/mcp-fleet.dev/v1alpha1/mcptenants/acme/status", "", "update mcptenants/status"),
            (Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/b", "force=true", "patch deployments"),
            (Method::DELETE, "/api/v1/namespaces/acme/services/files", "", "delete services"),
        ] {
            assert_eq!(classified(&method, path, query), expected, "{path}");
        }
        assert!(counter().is_some());
    }
}
