//! `MCPPrincipal`: one caller, with its own credential.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reference::Reference;
use crate::schema::rules;
use crate::{condition, integer};

/// A caller: an agent, a job or a person. Create one principal per caller; callers must not share credentials.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mcp-fleet.dev",
    version = "v1alpha1",
    kind = "MCPPrincipal",
    plural = "mcpprincipals",
    singular = "mcpprincipal",
    shortname = "mcpp",
    category = "mcp",
    namespaced,
    status = "MCPPrincipalStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Secret","type":"string","jsonPath":".status.credential.secretName"}"#,
    printcolumn = r#"{"name":"Serial","type":"integer","jsonPath":".status.credential.serial"}"#,
    printcolumn = r#"{"name":"Rotates","type":"date","jsonPath":".status.credential.rotatesAt","priority":1}"#,
    printcolumn = r#"{"name":"Suspended","type":"boolean","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MCPPrincipalSpec {
    /// How the caller authenticates.
    #[serde(default)]
    pub identity: Identity,
    /// Scopes that the principal holds, at most 64. They determine what it may call. Empty: it may call nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub scope_refs: Vec<Reference>,
    /// Limits on the principal's calls to all servers together. Absent: only the tenant's limits apply.
    #[serde(default)]
    pub limits: PrincipalLimits,
    /// If true, every call of this principal is refused within a second. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// Revokes all tokens issued at or before this time, within a second. A revocation is permanent: removing the field
    /// or setting an earlier time does not make a revoked token valid again. A time in the future is applied when it
    /// comes. In the form of RFC 3339 with capital letters, such as 2026-11-22T12:00:00Z, in the years 1000 to 2999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::time::schema")]
    pub revoke_issued_before: Option<Time>,
}

/// How a caller authenticates. A union: `type` names the method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Method of authentication. Managed: a token that the operator issues into the Secret `<name>-mcp-credential` and
    /// rotates. Default: Managed.
    #[serde(rename = "type", default)]
    pub kind: IdentityType,
}

/// Methods of authentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityType {
    /// A token that the operator issues into the Secret `<name>-mcp-credential` and rotates.
    #[default]
    Managed,
}

/// Limits on the calls of one principal to all servers together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.burst) || has(self.callsPerMinute)", "limits.burst requires limits.callsPerMinute; set it or remove burst"),
    ("!has(self.burst) || !has(self.callsPerMinute) || self.burst <= self.callsPerMinute",
     "limits.burst must not be larger than limits.callsPerMinute; lower burst"),
])))]
pub struct PrincipalLimits {
    /// Maximum number of calls per minute, 1 to 100000: the refill rate of a token bucket. Absent: only the tenant's
    /// limit applies.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub calls_per_minute: Option<u32>,
    /// Number of calls that may come at once: the size of the token bucket, 1 to 100000. Requires callsPerMinute and
    /// must not exceed it. Default: a sixth of callsPerMinute, at least 1.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<u32>,
    /// Maximum number of calls in flight, 1 to 10000. Absent: only the tenant's limit applies.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent_calls: Option<u32>,
}

/// Status of a principal, as observed by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPPrincipalStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The current credential. Absent until the first token is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Conditions of the principal: Ready, Reconciling, Stalled, Accepted, ResolvedRefs, CredentialCurrent,
    /// RevocationApplied, PolicyCurrent.
    #[serde(default, deserialize_with = "condition::read", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "condition::conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// A credential of a managed principal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// Name of the Secret that holds the token, in the principal's namespace.
    pub secret_name: String,
    /// Serial number of the token. Increases with every token that is issued.
    #[serde(deserialize_with = "integer::required")]
    pub serial: i64,
    /// Time at which the token was issued.
    #[schemars(schema_with = "crate::time::schema")]
    pub issued_at: Time,
    /// Time at which the next token will be issued. From then until `expiresAt` both tokens are valid.
    #[schemars(schema_with = "crate::time::schema")]
    pub rotates_at: Time,
    /// Time at which the token expires.
    #[schemars(schema_with = "crate::time::schema")]
    pub expires_at: Time,
}
