//! `MCPTenant`: a tenant and the upper limits that the platform team sets for it.

mod built_in;
mod endpoint;
mod gateway;
mod prices;
mod status;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use mcp_fleet_policy::model::Period;
use mcp_fleet_policy::units::{Currency, Micros, Window, limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use built_in::BuiltInTools;
pub use endpoint::{Endpoint, SecretReference};
pub use gateway::{Gateway, GatewayLimits, GatewayRequests, GatewayResources};
pub use prices::PriceFloor;
pub use status::{FormerUrl, GatewayStatus, MAX_FORMER_URLS, MCPTenantStatus};

use crate::integer;
use crate::names::{DNS_1035, DNS_1123, MAX_NAMESPACE, RUNTIME_NAMESPACE_SUFFIX};
use crate::pod::{PullSecretRef, ServerPods};
use crate::quantity::QuantitySchema;
use crate::schema::{cel, duration_at_least, duration_within, rules};

/// A tenant: isolated namespaces for MCP servers and the agents that call them, with upper limits on everything in
/// them. Objects in the tenant's namespace can narrow these limits but never widen them.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mcp-fleet.dev",
    version = "v1alpha1",
    kind = "MCPTenant",
    plural = "mcptenants",
    singular = "mcptenant",
    shortname = "mcpt",
    category = "mcp",
    status = "MCPTenantStatus",
    scale(spec_replicas_path = ".spec.gateway.replicas", status_replicas_path = ".status.gatewayReplicas"),
    derive = "PartialEq",
    printcolumn = r#"{"name":"Namespace","type":"string","jsonPath":".spec.namespace.name"}"#,
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".status.url"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Policy","type":"integer","jsonPath":".status.policyGeneration"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.runtimeNamespace) == has(oldSelf.runtimeNamespace) && (!has(self.runtimeNamespace) || self.runtimeNamespace == oldSelf.runtimeNamespace)",
     "runtimeNamespace cannot be changed; create another tenant instead"),
    ("!has(self.runtimeNamespace) || self.runtimeNamespace != self.__namespace__.name",
     "runtimeNamespace must differ from namespace.name, because the tenant must not have access to it"),
    ("!has(oldSelf.spendLimit) || has(self.spendLimit)",
     "spendLimit cannot be removed, because it would then be possible to add it with an empty record of spending; raise its amount instead"),
    ("!has(self.prices) || size(self.prices) == 0 || has(self.spendLimit)",
     "prices requires spendLimit, which sets the currency; set it or remove prices"),
])))]
pub struct MCPTenantSpec {
    /// The tenant's own namespace, which its members may edit. It holds the tenant's MCP Fleet objects and credential
    /// Secrets.
    pub namespace: TenantNamespace,
    /// Name of the namespace in which the gateway and the servers run. The operator creates it and never adopts an
    /// existing one; the tenant gets no access to it. Cannot be changed. Default: the tenant's name followed by `-mcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_NAMESPACE), regex(pattern = DNS_1035))]
    pub runtime_namespace: Option<String>,
    /// Resource limits of the tenant, at most 64, named as in a ResourceQuota. A `count/*` limit on a kind of MCP Fleet
    /// applies to the tenant's namespace, every other limit to the runtime namespace. If not set,
    /// `count/mcpservers.mcp-fleet.dev` is 200, `count/mcpscopes.mcp-fleet.dev` 2000,
    /// `count/mcpprincipals.mcp-fleet.dev` 5000 and `count/mcpbudgets.mcp-fleet.dev` 256.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, QuantitySchema>", extend("maxProperties" = 64))]
    pub hard: BTreeMap<String, Quantity>,
    /// Pod Security Standard enforced in the runtime namespace: Restricted or Baseline. Default: Restricted.
    #[serde(default)]
    pub pod_security: PodSecurity,
    /// Pods outside the tenant's own namespace that may open connections to the gateway, at most 16 entries. Pods in
    /// the tenant's own namespace always may. Empty: no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub clients: Vec<Client>,
    /// Limits on the calls of all principals together. Absent: no such limits.
    #[serde(default)]
    pub traffic: TenantTraffic,
    /// Whether every endpoint also has the tools `fleet_status`, with which agents see their limits, and
    /// `fleet_report_stuck`, with which they stop themselves and call a person: Enabled or Disabled. Default: Enabled.
    #[serde(default)]
    pub built_in_tools: BuiltInTools,
    /// Limit on the money that all principals together may spend in a period. It also sets the tenant's currency, so it
    /// is required if a tool has a price or a budget has an amount. Cannot be removed. Absent: no limit, and no prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend_limit: Option<SpendLimit>,
    /// Lowest prices of the tools of the tenant's servers, at most 64. A call costs the price that the server declares or the
    /// highest one here that applies to the tool, whichever is more. Requires `spendLimit`. Empty: prices as declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub prices: Vec<PriceFloor>,
    /// Container images that the tenant's servers may run. Default: none.
    #[serde(default)]
    pub images: Images,
    /// What the pods of all servers have, and what a server may add to its own. Default: nothing.
    #[serde(default, skip_serializing_if = "ServerPods::is_empty")]
    pub server_pods: ServerPods,
    /// Rules for the workspaces of the tenant's servers.
    #[serde(default)]
    pub workspaces: Workspaces,
    /// Lifetime and rotation of the tokens of managed principals.
    #[serde(default)]
    pub credentials: Credentials,
    /// The tenant's gateway.
    #[serde(default)]
    pub gateway: Gateway,
    /// How clients reach the servers.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// How long the gateway may rely on its policy.
    #[serde(default)]
    pub policy: PolicySettings,
    /// What happens to the pods of servers that the tenant's limits no longer allow: their image is not in `images` any
    /// more, `serverPods` does not allow their pods any more, or they exceed a lowered `hard`. Keep: they go on running and are maintained, but no change of their servers
    /// is applied. ScaleToZero: they are stopped, of those that exceed `hard` the newest servers first. Default: Keep.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// If true, every call of the tenant is refused within a second. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

impl MCPTenant {
    /// Returns the name of the runtime namespace: as set, or the tenant's name followed by `-mcp`.
    pub fn runtime_namespace(&self) -> String {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.runtime_namespace.clone().unwrap_or_else(|| format!("{name}{RUNTIME_NAMESPACE_SUFFIX}"))
    }
}

/// Limits on the number of objects in a tenant's namespace that apply unless `hard` sets others.
pub const DEFAULT_COUNTS: [(&str, u32); 4] = [
    ("count/mcpservers.mcp-fleet.dev", 200),
    ("count/mcpscopes.mcp-fleet.dev", 2000),
    ("count/mcpprincipals.mcp-fleet.dev", 5000),
    ("count/mcpbudgets.mcp-fleet.dev", 256),
];

/// The tenant's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.name == oldSelf.name", "namespace.name cannot be changed; create another tenant instead"),
    ("!(self.name in ['default', 'kube-system', 'kube-public', 'kube-node-lease'])",
     "namespace.name must not be default, kube-system, kube-public or kube-node-lease; choose a namespace for this tenant"),
])))]
pub struct TenantNamespace {
    /// Name of the namespace. The operator creates it if it does not exist. Must not be default, kube-system,
    /// kube-public or kube-node-lease. Cannot be changed.
    #[schemars(length(min = 1, max = MAX_NAMESPACE), regex(pattern = DNS_1123))]
    pub name: String,
    /// Whether the tenant may adopt an existing namespace. Labelled: yes, if its label `mcp-fleet.dev/tenant` has the
    /// tenant's name as value. Never: the operator must create the namespace. Default: Labelled.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,
    /// What happens to the namespace when the tenant is deleted. Retain: it stays, with everything that the tenant put
    /// there. Delete: it is deleted if the operator created it; an adopted namespace stays. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Whether a tenant may adopt an existing namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptionPolicy {
    /// Yes, if the label `mcp-fleet.dev/tenant` of the namespace has the tenant's name as value.
    #[default]
    Labelled,
    /// No: the operator must create the namespace.
    Never,
}

/// What happens to the tenant's namespace when the tenant is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays, with everything that the tenant put there.
    #[default]
    Retain,
    /// It is deleted if the operator created it. An adopted namespace stays.
    Delete,
}

/// What happens to the pods of servers that the tenant's limits no longer allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// They go on running and are maintained, but no change of their servers is applied.
    #[default]
    Keep,
    /// They are stopped.
    ScaleToZero,
}

/// A Pod Security Standard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodSecurity {
    /// The standard `restricted`.
    #[default]
    Restricted,
    /// The standard `baseline`.
    Baseline,
}

/// Pods that may open connections to the tenant's gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.namespaceSelector.matchLabels) && size(self.namespaceSelector.matchLabels) > 0 || has(self.namespaceSelector.matchExpressions) && self.namespaceSelector.matchExpressions.exists(it, it.operator == 'In' || it.operator == 'Exists' && it.key != 'kubernetes.io/metadata.name')",
     "namespaceSelector must name a label that the namespaces have: with matchLabels, In or Exists. Without one, or with NotIn, DoesNotExist or the label kubernetes.io/metadata.name alone, it would match nearly every namespace of the cluster"),
])))]
pub struct Client {
    /// Selects, by label, the namespaces whose pods may connect. Must name a label that they have, with matchLabels, In or
    /// Exists. Every namespace has the label `kubernetes.io/metadata.name`, so that Exists with it is not enough.
    #[schemars(with = "Selector")]
    pub namespace_selector: LabelSelector,
}

impl Client {
    /// Returns whether the selector names a label that the namespaces have, as the schema requires. Without one, it matches
    /// nearly every namespace.
    pub fn names_a_label(&self) -> bool {
        let LabelSelector { match_labels, match_expressions } = &self.namespace_selector;
        match_labels.as_ref().is_some_and(|labels| !labels.is_empty())
            || match_expressions
                .iter()
                .flatten()
                .any(|it| it.operator == "In" || it.operator == "Exists" && it.key != "kubernetes.io/metadata.name")
    }
}

/// Schema of a `LabelSelector` with bounds. The API server estimates the cost of CEL rules from the bounds.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only its schema is used")]
struct Selector {
    /// Labels that the namespace must have, with these values. At most 16.
    #[schemars(extend("maxProperties" = 16))]
    match_labels: Option<BTreeMap<String, String>>,
    /// Requirements on labels, all of which must be met. At most 16.
    #[schemars(length(max = 16))]
    match_expressions: Option<Vec<SelectorRequirement>>,
}

/// A requirement on one label.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct SelectorRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    key: String,
    /// Operator: In, NotIn, Exists or DoesNotExist.
    operator: SelectorOperator,
    /// Values to compare with, at most 32. For In and NotIn only.
    #[schemars(length(max = 32))]
    values: Option<Vec<String>>,
}

/// Operator that compares a label with values.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Limits on the calls of all principals together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantTraffic {
    /// Maximum number of calls per minute over all principals, 1 to 1000000. A sixth of them may come at once. Absent:
    /// only the principals' own limits apply.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls_per_minute: Option<u32>,
    /// Maximum number of calls in flight over all principals, 1 to 100000. Absent: only the principals' own limits
    /// apply.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent_calls: Option<u32>,
}

/// A limit on the money that a tenant may spend in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.currency == oldSelf.currency", "spendLimit.currency cannot be changed, because earlier spending is recorded in it; create another tenant instead"),
    ("self.period == oldSelf.period", "spendLimit.period cannot be changed, because spending is counted per period; create another tenant instead"),
])))]
pub struct SpendLimit {
    /// Currency of all prices and budgets of the tenant: an ISO 4217 code such as USD. Cannot be changed.
    pub currency: Currency,
    /// Length of a period, aligned to UTC: Hour, Day, Week (starts on Monday) or Month. At the end of each period the
    /// limit resets. Cannot be changed.
    pub period: Period,
    /// Maximum amount of money that may be spent in one period: a decimal string with at most six decimals, such as
    /// "500.00", up to "1000000000".
    pub amount: Micros,
}

/// Container images that the servers of a tenant may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Patterns that image names must match, without tag and digest; at most 64. `*` matches any characters except a
    /// slash; `**` at the end of a pattern matches any characters. Empty: no image is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed: Vec<String>,
    /// How servers must refer to images. Digest: by digest (`name@sha256:…`), so that the image behind a reference
    /// cannot change. Any: by tag or by digest. Default: Digest.
    #[serde(default)]
    pub reference_policy: ReferencePolicy,
    /// Secrets with which the images of all servers are pulled from private registries, at most 4. Each is of type
    /// `kubernetes.io/dockerconfigjson`, in the tenant's own namespace, and needs no label, because it is named here. Whoever
    /// may write MCPServers can have any image pulled with them that `allowed` covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pull_secrets: Vec<PullSecretRef>,
}

/// How servers must refer to images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReferencePolicy {
    /// By digest (`name@sha256:…`), so that the image behind a reference cannot change.
    #[default]
    Digest,
    /// By tag or by digest.
    Any,
}

/// Rules for the workspaces of a tenant's servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workspaces {
    /// Whether a new server gets the workspace that a deleted server of the same name retained. Never: it gets an empty
    /// one. SameName: it gets the one that was retained last, with its data and its size; everyone who may create servers
    /// in the tenant's namespace can then read that data. Decided once, when the server is created. Default: Never.
    #[serde(default)]
    pub reattach: Reattach,
    /// StorageClasses of which a server may name one for its workspace, at most 16. Empty: servers have the cluster's default class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = crate::pod::SUBDOMAIN)), extend("x-kubernetes-list-type" = "set"))]
    pub storage_class_names: Vec<String>,
}

/// Whether a new server gets the workspace that a deleted server retained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reattach {
    /// No: it gets an empty workspace.
    #[default]
    Never,
    /// Yes, if the deleted server had the same name.
    SameName,
}

/// Lifetime and rotation of the tokens of managed principals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    cel("duration(self.overlap) < duration(self.lifetime)", "credentials.overlap must be shorter than credentials.lifetime; lower overlap or raise lifetime"),
    duration_within("credentials.lifetime", limits::TOKEN_LIFETIME),
    duration_at_least("credentials.overlap", limits::MIN_TOKEN_OVERLAP, "so that callers have time to read the new token"),
])))]
pub struct Credentials {
    /// How long a token is valid after it is issued: a duration from 1m to 168h. Default: 1h.
    #[serde(default = "default_lifetime")]
    pub lifetime: Window,
    /// How long before a token expires the next one is issued. During this time both tokens are valid. A duration of at
    /// least 10s and shorter than lifetime. Default: 10m.
    #[serde(default = "default_overlap")]
    pub overlap: Window,
}

const fn default_lifetime() -> Window {
    Window::from_secs(3600)
}

const fn default_overlap() -> Window {
    Window::from_secs(600)
}

impl Default for Credentials {
    fn default() -> Self {
        Self { lifetime: default_lifetime(), overlap: default_overlap() }
    }
}

/// How long the gateway may rely on its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySettings {
    /// How old the operator's last confirmation that the policy is current may be. When it is older, calls are refused
    /// with the reason `policy_stale`.
    #[serde(default)]
    pub stale_after: StaleAfter,
}

/// How old the operator's last confirmation that the policy is current may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    duration_within("policy.staleAfter.read", limits::STALE_AFTER),
    duration_within("policy.staleAfter.write", limits::STALE_AFTER),
])))]
pub struct StaleAfter {
    /// Limit for calls of tools of class Read and for listing tools: a duration from 5s to 1h. With less, every failover
    /// of the operator would cause calls to be refused. Default: 1m.
    #[serde(default = "default_stale_read")]
    pub read: Window,
    /// Limit for calls of tools of class Write or Destructive: a duration from 5s to 1h. Default: 15s.
    #[serde(default = "default_stale_write")]
    pub write: Window,
}

const fn default_stale_read() -> Window {
    Window::from_secs(60)
}

const fn default_stale_write() -> Window {
    Window::from_secs(15)
}

impl Default for StaleAfter {
    fn default() -> Self {
        Self { read: default_stale_read(), write: default_stale_write() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_selector_names_a_label_that_few_namespaces_have() {
        let names = |selector: serde_json::Value| {
            let client = serde_json::json!({"namespaceSelector": selector});
            serde_json::from_value::<Client>(client).is_ok_and(|client| client.names_a_label())
        };
        let expressions = |all: serde_json::Value| serde_json::json!({"matchExpressions": all});
        assert!(names(serde_json::json!({"matchLabels": {"team": "acme"}})));
        assert!(names(expressions(serde_json::json!([{"key": "team", "operator": "In", "values": ["acme"]}]))));
        assert!(names(expressions(serde_json::json!([{"key": "agents", "operator": "Exists"}]))));
        for wide in [
            serde_json::json!({}),
            serde_json::json!({"matchLabels": {}}),
            expressions(serde_json::json!([])),
            expressions(serde_json::json!([{"key": "team", "operator": "NotIn", "values": ["other"]}])),
            expressions(serde_json::json!([{"key": "team", "operator": "DoesNotExist"}])),
            expressions(serde_json::json!([{"key": "kubernetes.io/metadata.name", "operator": "Exists"}])),
        ] {
            assert!(!names(wide.clone()), "{wide}");
        }
    }
}
