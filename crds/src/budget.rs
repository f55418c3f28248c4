//! `MCPBudget`: a limit on money or calls per period.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{BudgetMode, Period};
use mcp_fleet_policy::units::Micros;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reference::Reference;
use crate::schema::rules;
use crate::{condition, integer};

/// A limit on money, calls or both per period. A call is admitted only if every budget that covers it, and the tenant's
/// `spendLimit`, have enough left.
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
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode","priority":1}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.amount) || has(self.calls)", "a budget needs amount or calls; set at least one of them"),
    ("self.period == oldSelf.period", "period cannot be changed, because spending is counted per period; create another budget instead"),
])))]
pub struct MCPBudgetSpec {
    /// Selects the calls that the budget covers. Absent: all calls of the tenant.
    #[serde(default)]
    pub selector: BudgetSelector,
    /// Length of a period, aligned to UTC: Hour, Day, Week (starts on Monday) or Month. At the end of each period the
    /// budget resets. Cannot be changed.
    pub period: Period,
    /// Maximum amount of money that may be spent in one period, in the tenant's currency: a decimal string with at most
    /// six decimals, such as "5.00", up to "1000000000". Requires the tenant's `spendLimit`, which sets the currency.
    /// Absent: money is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Micros>,
    /// Maximum number of calls in one period, up to 1000000000000. Absent: the number of calls is not limited.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_u64))]
    pub calls: Option<u64>,
    /// What happens to calls beyond the limits: Enforce (they are refused) or Monitor (they are counted, and the condition
    /// Exceeded and a Warning Event tell when the budget is used up; no call is refused or waits because of this budget). The
    /// tenant's `spendLimit` is always enforced. A change applies within the current period. Default: Enforce.
    #[serde(default)]
    pub mode: BudgetMode,
    /// Percentage of the amount or of the calls, 1 to 99. When that much of either is spent in a period, the condition NearLimit
    /// becomes True and a Warning Event is written. Calls are not refused. Absent: no warning.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub warn_at_percent: Option<u32>,
}

/// Selects the calls that a budget covers: those that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetSelector {
    /// Calls by these principals, 1 to 64. Absent: calls by any principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub principal_refs: Option<Vec<Reference>>,
    /// Calls to these servers, 1 to 64. Absent: calls to any server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub server_refs: Option<Vec<Reference>>,
    /// Calls of tools of these classes: Read, Write, Destructive. Absent: calls of any class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub classes: Option<Vec<Class>>,
}

/// Status of a budget, as observed by the operator. The figures summarise the ledger and are up to 20 seconds old.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPBudgetStatus {
    /// The `metadata.generation` that this status describes.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Use of the budget in the current period.
    #[serde(flatten)]
    pub spending: Option<Spending>,
    /// What a person added to the limits for the current period with the annotation `mcp-fleet.dev/top-up`. Included in
    /// `remaining`. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_up: Option<ToppedUp>,
    /// Conditions of the budget: Ready, Reconciling, Stalled, ResolvedRefs, NearLimit, Exhausted,
    /// Exceeded, ToppedUp, PolicyCurrent.
    #[serde(default, deserialize_with = "condition::read", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "condition::conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// Use of a budget in one period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spending {
    /// The period that these figures cover.
    pub current_period: CurrentPeriod,
    /// Money spent and settled, in the tenant's currency. Absent: the budget does not limit money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Micros>,
    /// Money that gateways hold in leases and have not reported as spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<Micros>,
    /// Money leased to gateways that ended without a final report. It counts as spent in this period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forfeited: Option<Micros>,
    /// Money left to lease: the limit less what is spent, leased and forfeited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<Micros>,
    /// The same figures for calls. Absent: the budget does not limit calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallCounts>,
}

/// What a person added to the limits of a budget for one period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToppedUp {
    /// Money, in the tenant's currency. Absent: the budget does not limit money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Micros>,
    /// Number of calls. Absent: the budget does not limit calls.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
}

/// Start and end of a period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentPeriod {
    /// Start of the period.
    #[schemars(schema_with = "crate::time::schema")]
    pub start: Time,
    /// End of the period, when the budget resets.
    #[schemars(schema_with = "crate::time::schema")]
    pub end: Time,
}

/// Use of a budget that limits calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallCounts {
    /// Calls made and settled.
    #[serde(deserialize_with = "integer::required")]
    pub spent: u64,
    /// Calls that gateways hold in leases and have not reported as made.
    #[serde(deserialize_with = "integer::required")]
    pub leased: u64,
    /// Calls leased to gateways that ended without a final report. They count as made in this period.
    #[serde(deserialize_with = "integer::required")]
    pub forfeited: u64,
    /// Calls left to lease: the limit less what is spent, leased and forfeited.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
}
