//! `MCPLedger`: internal, in the operator's namespace: what one budget has spent and lent in one period.
//!
//! Written by the leader alone, always whole, with the `resourceVersion` it was read at: the API server's consensus is
//! what makes two leaders harmless. All of it stands in `spec`, since it is the record and not an observation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The ledger of one budget in one period. Internal: made and changed by the operator only.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mcp-fleet.dev",
    version = "v1alpha1",
    kind = "MCPLedger",
    plural = "mcpledgers",
    singular = "mcpledger",
    shortname = "mcpl",
    category = "mcp",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Tenant","type":"string","jsonPath":".spec.tenant.name"}"#,
    printcolumn = r#"{"name":"Budget","type":"string","jsonPath":".spec.budget.name"}"#,
    printcolumn = r#"{"name":"Start","type":"string","jsonPath":".spec.start"}"#,
    printcolumn = r#"{"name":"Settled","type":"integer","jsonPath":".spec.settled.amount"}"#,
    printcolumn = r#"{"name":"Forfeited","type":"integer","jsonPath":".spec.forfeited.amount"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MCPLedgerSpec {
    /// The tenant.
    pub tenant: LedgerOwner,
    /// The budget; for the tenant's spend limit the tenant's own UID, and the name `spendLimit`.
    pub budget: LedgerOwner,
    /// When the period began.
    pub start: Time,
    /// When the period ends.
    pub end: Time,
    /// Settled by reports: totals over `items`.
    #[serde(default)]
    pub settled: Tally,
    /// Lost with gateways that ended without a last report; itemised in `losses`.
    #[serde(default)]
    pub forfeited: Tally,
    /// Leases that have not been closed: charged in full; what was reported of them so far is settled already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub leases: Vec<LedgerLease>,
    /// What was settled, by principal, server and tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub items: Vec<LedgerItem>,
    /// What was forfeited, by lease: the newest ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub losses: Vec<LedgerLoss>,
    /// What was forfeited with leases that are no longer among `losses`.
    #[serde(default)]
    pub older_losses: Tally,
}

/// A name and a UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerOwner {
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
}

/// Money and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Money, in millionths of the tenant's currency.
    #[serde(default)]
    pub amount: u64,
    /// Calls.
    #[serde(default)]
    pub calls: u64,
}

/// A lease that has not been closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerLease {
    /// Unique among all leases of the budget.
    pub id: String,
    /// UID of the gateway pod that holds it.
    pub pod_uid: String,
    /// The epoch of the gateway's process, chosen by it at random when it starts.
    pub epoch: String,
    /// The number of the request that it answers: asked again, the same lease is the answer.
    pub request: u64,
    /// What was charged for it.
    pub granted: Grant,
    /// The number of the last report that was counted.
    #[serde(default)]
    pub sequence: u64,
    /// What was reported so far, by principal, server and tool; part of the ledger's `items`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub items: Vec<LedgerItem>,
    /// When the holder has to have stopped spending.
    pub expires_at: Time,
}

/// Spending of one principal on one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerItem {
    /// The principal: `<namespace>/<name>`.
    pub principal: String,
    /// The server's name.
    pub server: String,
    /// The tool's name.
    pub tool: String,
    /// Money, in millionths of the tenant's currency.
    pub amount: u64,
    /// Calls.
    pub calls: u64,
}

/// What was charged for a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Money, in millionths of the tenant's currency; absent: the budget did not limit money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    /// Calls; absent: the budget did not limit calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
}

/// What was lost with one lease: what was charged for it and never reported. A late report still settles it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerLoss {
    /// The lease, as it was last known.
    pub lease: LedgerLease,
    /// When it was given up.
    pub at: Time,
}
