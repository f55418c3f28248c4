//! How clients reach the servers of a tenant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{cel, rules};

/// Pattern of an origin as browsers send it: scheme, host and port, without a path.
const ORIGIN: &str = r"^[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:[1-9][0-9]{0,4})?$";

/// Pattern of an RFC 1123 subdomain: a host name in lower case, without a dot at its end.
const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$";
/// Longest host name (RFC 1035, section 2.3.4), and longest name of a Secret.
const MAX_HOSTNAME: usize = 253;

/// How clients reach the servers of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    cel("!has(self.allowedOrigins) || self.allowedOrigins.all(it, !it.startsWith('http://') || it.matches('^http://(localhost|127[.]0[.]0[.]1|\\\\[::1\\\\])(:[0-9]+)?$'))",
        "endpoint.allowedOrigins must use https, except for localhost, 127.0.0.1 and [::1]: a page that comes without TLS can be replaced on its way"),
    cel("!has(self.allowedOrigins) || self.allowedOrigins.all(it, !(it.startsWith('https://') && it.endsWith(':443')) && !(it.startsWith('http://') && it.endsWith(':80')))",
        "endpoint.allowedOrigins must not name the default port of a scheme, because browsers leave it out of Origin"),
    cel("has(self.hostname) == has(self.certificateSecretRef)",
        "endpoint.hostname and endpoint.certificateSecretRef need each other; set both or neither"),
    cel("!has(self.hostname) || self.hostname.contains('.') && !self.hostname.matches('(^|[.])[0-9]+$') && !self.hostname.matches('[.]svc([.]|$)') && !self.hostname.matches('[.](local|localhost)$') && !self.hostname.matches('^gateway[.][^.]+$')",
        "endpoint.hostname must be a name outside of the cluster: with two labels or more, of which the last is not a number, local or localhost; not below svc; and not gateway.<label>, by which pods reach the gateway of a namespace"),
])))]
pub struct Endpoint {
    /// Origins of web pages whose scripts may call the servers, with a token of their own; at most 32. Each is compared
    /// exactly with the header `Origin`, so it has no path and no default port: `https://app.example.com`,
    /// `http://localhost:3000`. Empty: requests that browsers send for pages are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 255), regex(pattern = ORIGIN)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_origins: Vec<String>,
    /// A host name under which clients outside of the cluster reach the gateway, in lower case: `mcp.example.com`. It is
    /// taken into use once every gateway serves a certificate for it; see `status.publicName`. Names inside of the cluster
    /// are refused. Requires `certificateSecretRef`. Absent: the gateway has only its name in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_HOSTNAME), regex(pattern = DNS_SUBDOMAIN))]
    pub hostname: Option<String>,
    /// The Secret with the certificate for `hostname` and its key, of type `kubernetes.io/tls`, in the tenant's namespace.
    /// It is read again every minute. Requires `hostname`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret_ref: Option<SecretReference>,
}

/// Reference to a Secret in the tenant's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = MAX_HOSTNAME), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}
