//! Credentials for private registries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pattern of the name of a Secret (RFC 1123 subdomain).
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A Secret of type `kubernetes.io/dockerconfigjson` in the tenant's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretRef {
    /// Name of the Secret, at most 128 characters.
    #[schemars(length(min = 1, max = 128), regex(pattern = SUBDOMAIN))]
    pub name: String,
}
