//! `MCPBudget`: how much may be spent, or how often called, in a period.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::Period;
use mcp_fleet_policy::units::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::conditions_schema;
use crate::reference::Reference;
use crate::schema::rules;

/// A limit of money or calls in a period. Every budget that matches a call must have room, and the tenant's spend limit
/// too.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mcp-fleet.dev",
    version = "v1alpha1",
    kind = "MCPBudget",
    plural = "mcpbudgets",
    singular = "mcpbudget",
    shortname = "mcpb",
    category = "mcp",
    namespaced,
    status = "MCPBudgetStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Period","type":"string","jsonPath":".spec.period"}"#,
    printcolumn = r#"{"name":"Amount","type":"string","jsonPath":".spec.amount"}"#,
    printcolumn = r#"{"name":"Spent","type":"string","jsonPath":".status.spent"}"#,
    printcolumn = r#"{"name":"Remaining","type":"string","jsonPath":".status.remaining"}"#,
    printcolumn = r#"{"name":"Calls","type":"integer","jsonPath":".spec.calls","priority":1}"#,
    printcolumn = r#"{"name":"Exhausted","type":"string","jsonPath":".status.conditions[?(@.type==\"Exhausted\")].status"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.amount) || has(self.calls)", "a budget needs amount or calls; set at least one of them"),
    ("self.period == oldSelf.period", "period cannot be changed: what was spent is counted in it; create another budget instead"),
])))]
pub struct MCPBudgetSpec {
    /// Which calls it covers. Absent: all of the tenant's.
    #[serde(default)]
    pub selector: BudgetSelector,
    /// How often it starts anew, aligned to UTC: Hour, Day, Week (from Monday) or Month. Cannot be changed.
    pub period: Period,
    /// The most money that is spent in a period, in the tenant's currency: a decimal string with at most six decimals,
    /// such as "5.00". Absent: not limited by money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Micros>,
    /// The most calls in a period. Absent: not limited by calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64))]
    pub calls: Option<u64>,
}

/// Which calls a budget covers: those that match every part that is present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetSelector {
    /// Calls of these principals. Absent: of any. An empty list is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub principal_refs: Option<Vec<Reference>>,
    /// Calls to these servers. Absent: to any. An empty list is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub server_refs: Option<Vec<Reference>>,
    /// Calls of tools of these classes. Absent: of any. An empty list is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub classes: Option<Vec<Class>>,
}

/// What the operator says about a budget: a summary of the ledger, some seconds old.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPBudgetStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands in the period that runs now.
    #[serde(flatten)]
    pub spending: Option<Spending>,
    /// Ready, Reconciling, Stalled, ResolvedRefs, Exhausted, PolicyCurrent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// Where a budget stands in a period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spending {
    /// The period that the figures are of.
    pub current_period: CurrentPeriod,
    /// Money that was spent and settled, in the tenant's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Micros>,
    /// Money that gateways hold to spend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<Micros>,
    /// Money that was leased to a gateway which ended without a last report; it counts as spent in this period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forfeited: Option<Micros>,
    /// Money that is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<Micros>,
    /// The same in calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallCounts>,
}

/// The period that figures are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentPeriod {
    /// When it began.
    pub start: Time,
    /// When it ends.
    pub end: Time,
}

/// Where a budget of calls stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallCounts {
    /// Calls that were made and settled.
    pub spent: u64,
    /// Calls that gateways hold to make.
    pub leased: u64,
    /// Calls that were leased to a gateway which ended without a last report.
    pub forfeited: u64,
    /// Calls that are left; absent: not limited by calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
}
