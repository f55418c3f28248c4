//! How clients reach the servers of a tenant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{cel, rules};

/// Pattern of an origin as browsers send it: scheme, host and port, without a path.
const ORIGIN: &str = r"^[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:[1-9][0-9]{0,4})?$";

/// How clients reach the servers of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    cel("!has(self.allowedOrigins) || self.allowedOrigins.all(it, !it.startsWith('http://') || it.matches('^http://(localhost|127[.]0[.]0[.]1|\\\\[::1\\\\])(:[0-9]+)?$'))",
        "endpoint.allowedOrigins must use https, except for localhost, 127.0.0.1 and [::1]: a page that comes without TLS can be replaced on its way"),
    cel("!has(self.allowedOrigins) || self.allowedOrigins.all(it, !(it.startsWith('https://') && it.endsWith(':443')) && !(it.startsWith('http://') && it.endsWith(':80')))",
        "endpoint.allowedOrigins must not name the default port of a scheme, because browsers leave it out of Origin"),
])))]
pub struct Endpoint {
    /// Origins of web pages whose scripts may call the servers, with a token of their own; at most 32. Each is compared
    /// exactly with the header `Origin`, so it has no path and no default port: `https://app.example.com`,
    /// `http://localhost:3000`. Empty: requests that browsers send for pages are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 255), regex(pattern = ORIGIN)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_origins: Vec<String>,
}
