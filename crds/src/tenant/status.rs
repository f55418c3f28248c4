//! Status of an `MCPTenant`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::budget::Spending;
use crate::{condition, integer};

/// Most URLs of former public names.
pub const MAX_FORMER_URLS: usize = 16;

/// Status of a tenant, as observed by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPTenantStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of the tenant's own namespace. Absent until the operator has created or adopted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the namespace in which the gateway and the servers run. Absent until it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_namespace: Option<String>,
    /// Base URL of the tenant's gateway. The endpoint of a server is `<url>/<server>/mcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The public host name in use: every gateway serves a certificate for it, and tokens are issued for it. Differs from
    /// `spec.endpoint.hostname` until a new name can be used. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_name: Option<String>,
    /// URLs of public names that were in use before, while tokens for them may still be valid. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_FORMER_URLS), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["url"]))]
    pub former_urls: Vec<FormerUrl>,
    /// Generation of the policy that the operator published last.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub policy_generation: Option<i64>,
    /// SHA-256 digest of that policy, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<String>,
    /// Number of gateway pods that exist, ready or not.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub gateway_replicas: Option<i32>,
    /// Gateway pods, with the policy generation that each enforces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"]))]
    pub gateways: Vec<GatewayStatus>,
    /// Use of `spendLimit` in the current period. Summarises the ledger and is up to a minute old. Absent: no spend
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spending: Option<Spending>,
    /// Conditions of the tenant: Ready, Reconciling, Stalled, PolicyCurrent, Exhausted,
    /// PodsCurrent, EndpointReady.
    #[serde(default, deserialize_with = "condition::read", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "condition::conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The policy generation that one gateway pod enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Name of the pod, in the runtime namespace.
    pub pod: String,
    /// Policy generation that the pod has acknowledged and enforces.
    #[serde(deserialize_with = "integer::required")]
    pub policy_generation: i64,
}

/// The URL of a public name that was in use before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormerUrl {
    /// The URL: `https://` and the host name.
    pub url: String,
    /// Until then, tokens that were issued for the URL are accepted. The last of them has expired by that time.
    #[schemars(schema_with = "crate::time::schema")]
    pub accepted_until: Time,
}
