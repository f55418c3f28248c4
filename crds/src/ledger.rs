//! `MCPLedger`: the record of what one budget has spent and leased in one period. Internal to the operator.
//!
//! Only the leader writes it, always as a whole and with the `resourceVersion` it was read at. If two replicas believe
//! that they lead, the API server therefore rejects one of the writes. All data is in `spec`, because it is the record
//! itself and not an observation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::integer;

/// The ledger of one budget in one period, in the operator's namespace. Internal: only the operator may write it.
///
/// The ledger of a tenant's `spendLimit` that starts at the Unix epoch collects the items of all closed periods.
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
    /// The tenant that the budget belongs to.
    pub tenant: LedgerOwner,
    /// The budget. For the tenant's spend limit, the name is `spendLimit` and the UID is the tenant's.
    pub budget: LedgerOwner,
    /// Start of the period.
    #[schemars(schema_with = "crate::time::schema")]
    pub start: Time,
    /// End of the period.
    #[schemars(schema_with = "crate::time::schema")]
    pub end: Time,
    /// Spend that gateways have reported: the sum of `items` and `closed`.
    #[serde(default)]
    pub settled: Tally,
    /// Unreported part of leases that ended without a final report; it counts as spent. Itemised in `losses` and
    /// `olderLosses`.
    #[serde(default)]
    pub forfeited: Tally,
    /// Open leases. Each is charged in full when it is granted; what was reported on it so far is in `settled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub leases: Vec<LedgerLease>,
    /// Settled spend by principal, server and tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub items: Vec<LedgerItem>,
    /// The newest forfeited leases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub losses: Vec<LedgerLoss>,
    /// Sum of the forfeited leases that are no longer in `losses`.
    #[serde(default)]
    pub older_losses: Tally,
    /// Settled spend whose items were removed when the period was closed. Absent while the period is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Tally>,
    /// In the ledger of all closed periods: the period that was added last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_closed: Option<ClosedPeriod>,
    /// UID of the budget in the cluster that the fleet was restored from, if its ledger for the same period is part of this
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub restored_from: Option<String>,
}

/// Name and UID of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerOwner {
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
}

/// An amount of money and a number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Money, in millionths of the tenant's currency.
    #[serde(default, deserialize_with = "integer::required")]
    pub amount: u64,
    /// Number of calls.
    #[serde(default, deserialize_with = "integer::required")]
    pub calls: u64,
}

/// A lease: an amount of the budget that one gateway process may spend until a deadline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerLease {
    /// ID of the lease, unique among all leases of the budget.
    pub id: String,
    /// UID of the gateway pod that holds the lease.
    pub pod_uid: String,
    /// Epoch of the gateway process: a random value that the process chooses when it starts.
    pub epoch: String,
    /// Number of the request that this lease answers. A repeated request gets the same lease.
    #[serde(deserialize_with = "integer::required")]
    pub request: u64,
    /// Amount charged to the budget for the lease.
    pub granted: Grant,
    /// Sequence number of the last report that was applied.
    #[serde(default, deserialize_with = "integer::required")]
    pub sequence: u64,
    /// Spend reported so far, by item of the ledger. Included in the ledger's `items`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub entries: Vec<LedgerEntry>,
    /// Deadline after which the holder must not spend the lease.
    #[schemars(schema_with = "crate::time::schema")]
    pub expires_at: Time,
}

/// Spend of one principal on one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerItem {
    /// Principal, as `<namespace>/<name>`. Empty in the item that collects spend beyond the ledger's capacity.
    pub principal: String,
    /// Name of the server.
    pub server: String,
    /// Name of the tool.
    pub tool: String,
    /// Money, in millionths of the tenant's currency.
    #[serde(deserialize_with = "integer::required")]
    pub amount: u64,
    /// Number of calls.
    #[serde(deserialize_with = "integer::required")]
    pub calls: u64,
}

/// Spend of a lease that belongs to one item of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// Position of the item in the ledger's `items`, from 0.
    #[serde(deserialize_with = "integer::required")]
    pub item: u32,
    /// Money, in millionths of the tenant's currency.
    #[serde(deserialize_with = "integer::required")]
    pub amount: u64,
    /// Number of calls.
    #[serde(deserialize_with = "integer::required")]
    pub calls: u64,
}

/// Amount charged to a budget for a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Money, in millionths of the tenant's currency. Absent: the budget did not limit money.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    /// Number of calls. Absent: the budget did not limit calls.
    #[serde(default, deserialize_with = "integer::optional", skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
}

/// A forfeited lease: the part of it that was never reported counts as spent. A late report still settles it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerLoss {
    /// The lease, in its last known state.
    pub lease: LedgerLease,
    /// Time at which the lease was forfeited.
    #[schemars(schema_with = "crate::time::schema")]
    pub at: Time,
}

/// A closed period whose items were added to the ledger of all closed periods. Start and settled spend identify what was
/// added, so that it is added once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClosedPeriod {
    /// Start of the period.
    #[schemars(schema_with = "crate::time::schema")]
    pub start: Time,
    /// Settled spend of the period when its items were added.
    pub settled: Tally,
}
