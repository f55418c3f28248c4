//! `MCPPrincipal`: one caller, with a credential of its own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::conditions_schema;
use crate::reference::Reference;
use crate::schema::rules;

/// A caller: an agent, a job, a person. Every caller is a principal of its own; credentials are never shared.
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
    /// How the caller proves who it is.
    #[serde(default)]
    pub identity: Identity,
    /// The scopes that it holds: what it may call. Empty: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub scope_refs: Vec<Reference>,
    /// Limits over all servers together.
    #[serde(default)]
    pub limits: PrincipalLimits,
    /// Refuse every call of this principal, within a second. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// Tokens that were issued at or before this time (RFC 3339) are refused, within a second. Latched: taking it back
    /// or setting an earlier time does not make a revoked token good again. A time in the future is not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_issued_before: Option<Time>,
}

/// How a caller proves who it is. A union: `type` names the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Managed: by a token that the operator issues into a Secret, and rotates. Default: Managed.
    #[serde(rename = "type", default)]
    pub kind: IdentityType,
}

/// The ways in which a caller can prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityType {
    /// By a token that the operator issues into the Secret `<name>-mcp-credential`, and rotates.
    #[default]
    Managed,
}

/// Limits of one principal over all servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.burst) || has(self.callsPerMinute)", "limits.burst needs limits.callsPerMinute; set it or remove burst"),
    ("!has(self.burst) || !has(self.callsPerMinute) || self.burst <= self.callsPerMinute",
     "limits.burst must not be larger than limits.callsPerMinute; lower burst"),
])))]
pub struct PrincipalLimits {
    /// Calls in a minute, refilled steadily. Absent: no limit beside the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub calls_per_minute: Option<u32>,
    /// Calls that may come at once. Default: a sixth of callsPerMinute, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<u32>,
    /// Calls in flight. Absent: no limit beside the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent_calls: Option<u32>,
}

/// What the operator says about a principal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPPrincipalStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The credential that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Ready, Reconciling, Stalled, Accepted, ResolvedRefs, CredentialCurrent, RevocationApplied, PolicyCurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// A credential of a managed principal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// Name of the Secret that holds it, in the principal's namespace.
    pub secret_name: String,
    /// Counts up by one with every token.
    pub serial: i64,
    /// When the token was issued.
    pub issued_at: Time,
    /// When the next token will be issued. Both are good from then to `expiresAt`.
    pub rotates_at: Time,
    /// When the token ends.
    pub expires_at: Time,
}
