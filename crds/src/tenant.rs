//! `MCPTenant`: the ceiling over everything in one tenant, set by the platform team.

mod status;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use mcp_fleet_policy::model::Period;
use mcp_fleet_policy::units::{Currency, Micros, Window};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use status::{GatewayStatus, MCPTenantStatus};

use crate::names::{DNS_1035, DNS_1123};
use crate::schema::rules;

/// A tenant: an isolated set of namespaces for MCP servers and the agents that call them. Everything in the tenant's
/// namespace can only narrow what stands here.
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
     "runtimeNamespace must differ from namespace.name; the tenant may not reach into it"),
])))]
pub struct MCPTenantSpec {
    /// The tenant's own namespace: what it may edit.
    pub namespace: TenantNamespace,
    /// The namespace in which gateway and servers run; created by the operator, never adopted, closed to the tenant.
    /// Cannot be changed. Default: the tenant's name with `-mcp` behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_1035))]
    pub runtime_namespace: Option<String>,
    /// Hard limits, named as in a ResourceQuota. `count/*` of MCP Fleet's own kinds hold for the tenant's namespace,
    /// everything else for the runtime namespace. Empty: no quota.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub hard: BTreeMap<String, Quantity>,
    /// Pod Security Standard that is enforced in the runtime namespace. Default: Restricted.
    #[serde(default)]
    pub pod_security: PodSecurity,
    /// Who may open connections to the gateway, beside pods of the tenant's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub clients: Vec<Client>,
    /// Limits over the calls of all principals together.
    #[serde(default)]
    pub traffic: TenantTraffic,
    /// Ceiling over the money that all principals spend together. Required once a tool has a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend_limit: Option<SpendLimit>,
    /// Which images the tenant's servers may run. Default: none.
    #[serde(default)]
    pub images: Images,
    /// Lifetime of the credentials of managed principals.
    #[serde(default)]
    pub credentials: Credentials,
    /// How the gateway treats its policy.
    #[serde(default)]
    pub policy: PolicySettings,
    /// Kill switch: every call of the tenant is refused within a second. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

impl MCPTenant {
    /// The runtime namespace: as written, or the tenant's name with `-mcp` behind it.
    pub fn runtime_namespace(&self) -> String {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.runtime_namespace.clone().unwrap_or_else(|| format!("{name}-mcp"))
    }
}

/// The tenant's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.name == oldSelf.name", "namespace.name cannot be changed; create another tenant instead"),
    ("!(self.name in ['default', 'kube-system', 'kube-public', 'kube-node-lease'])",
     "namespace.name must not be a namespace of Kubernetes itself; choose one of the tenant's own"),
])))]
pub struct TenantNamespace {
    /// Name of the namespace. Created if it does not exist. Cannot be changed.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_1123))]
    pub name: String,
    /// Whether a namespace that exists already may become the tenant's. Default: Labelled.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,
    /// What becomes of the namespace when the tenant is deleted. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Whether a namespace that exists already may become the tenant's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptionPolicy {
    /// If it carries the label `mcp-fleet.dev/tenant` with the tenant's name.
    #[default]
    Labelled,
    /// Never: the namespace has to be made by the operator.
    Never,
}

/// What becomes of the tenant's namespace when the tenant is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays, with everything that the tenant has put there.
    #[default]
    Retain,
    /// It is deleted, if the operator made it. An adopted namespace always stays.
    Delete,
}

/// A Pod Security Standard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodSecurity {
    /// `restricted`.
    #[default]
    Restricted,
    /// `baseline`.
    Baseline,
}

/// Pods that may open connections to the tenant's gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.namespaceSelector.matchLabels) && size(self.namespaceSelector.matchLabels) > 0 || has(self.namespaceSelector.matchExpressions) && size(self.namespaceSelector.matchExpressions) > 0",
     "namespaceSelector must name a label; an empty selector would admit every namespace of the cluster"),
])))]
pub struct Client {
    /// Labels of the namespaces that the pods run in.
    #[schemars(with = "Selector")]
    pub namespace_selector: LabelSelector,
}

/// A bounded form of `LabelSelector`, for the schema only: the cost of a rule is estimated from the bounds.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only its schema is used")]
struct Selector {
    /// Labels that all have to be there.
    #[schemars(extend("maxProperties" = 16))]
    match_labels: Option<BTreeMap<String, String>>,
    /// Expressions that all have to hold.
    #[schemars(length(max = 16))]
    match_expressions: Option<Vec<SelectorRequirement>>,
}

/// One expression over a label.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct SelectorRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    key: String,
    /// In, NotIn, Exists or DoesNotExist.
    operator: SelectorOperator,
    /// Values, for In and NotIn.
    #[schemars(length(max = 32))]
    values: Option<Vec<String>>,
}

/// How a label is compared.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Limits over the calls of all principals together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantTraffic {
    /// Calls in a minute, over all principals. Absent: no limit beside the principals' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls_per_minute: Option<u32>,
    /// Calls in flight, over all principals. Absent: no limit beside the principals' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent_calls: Option<u32>,
}

/// A ceiling over the money that a tenant spends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.currency == oldSelf.currency", "spendLimit.currency cannot be changed: amounts already spent are in it; create another tenant instead"),
])))]
pub struct SpendLimit {
    /// Currency of all prices and budgets of the tenant: an ISO 4217 code such as USD.
    pub currency: Currency,
    /// How often it starts anew, aligned to UTC: Hour, Day, Week (from Monday) or Month.
    pub period: Period,
    /// The most that is spent in a period: a decimal string with at most six decimals, such as "500.00".
    pub amount: Micros,
}

/// Which images the servers of a tenant may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Patterns of image names, without tag and digest. A `*` stands for any run of characters but a slash, a `**`
    /// at the end for the rest. Empty: no image is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed: Vec<String>,
    /// How images must be referred to. Default: Digest.
    #[serde(default)]
    pub reference_policy: ReferencePolicy,
}

/// How images must be referred to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReferencePolicy {
    /// By digest (`name@sha256:…`): what runs cannot change under its reference.
    #[default]
    Digest,
    /// By tag or by digest.
    Any,
}

/// Lifetime of the credentials of managed principals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.overlap) < duration(self.lifetime)", "credentials.overlap must be shorter than credentials.lifetime; lower overlap or raise lifetime"),
    ("duration(self.lifetime) >= duration('1m') && duration(self.lifetime) <= duration('168h')", "credentials.lifetime must be between 1m and 168h"),
    ("duration(self.overlap) >= duration('10s')", "credentials.overlap must be at least 10s, or callers have no time to read the new token"),
])))]
pub struct Credentials {
    /// How long a token is good, from its issue: a duration such as 1h. Default: 1h.
    #[serde(default = "default_lifetime")]
    pub lifetime: Window,
    /// How long the token before stays good after a rotation; the next token is issued this long before the current
    /// one expires. A duration such as 10m, shorter than lifetime. Default: 10m.
    #[serde(default = "default_overlap")]
    pub overlap: Window,
}

/// An hour.
const fn default_lifetime() -> Window {
    Window::from_secs(3600)
}

/// Ten minutes.
const fn default_overlap() -> Window {
    Window::from_secs(600)
}

impl Default for Credentials {
    fn default() -> Self {
        Self { lifetime: default_lifetime(), overlap: default_overlap() }
    }
}

/// How the gateway treats its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySettings {
    /// How old the operator's last proof that the policy is current may be before calls are refused.
    #[serde(default)]
    pub stale_after: StaleAfter,
}

/// How old the operator's last proof that the policy is current may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.read) >= duration('5s') && duration(self.write) >= duration('5s') && duration(self.read) <= duration('1h') && duration(self.write) <= duration('1h')",
     "policy.staleAfter.read and .write must be between 5s and 1h; below the time that a new leader of the operator takes, calls would be refused at every failover"),
])))]
pub struct StaleAfter {
    /// For tools of class Read, and for listing: a duration. Default: 60s.
    #[serde(default = "default_stale_read")]
    pub read: Window,
    /// For tools of the other classes: a duration. Default: 15s.
    #[serde(default = "default_stale_write")]
    pub write: Window,
}

/// A minute.
const fn default_stale_read() -> Window {
    Window::from_secs(60)
}

/// A quarter of a minute.
const fn default_stale_write() -> Window {
    Window::from_secs(15)
}

impl Default for StaleAfter {
    fn default() -> Self {
        Self { read: default_stale_read(), write: default_stale_write() }
    }
}
