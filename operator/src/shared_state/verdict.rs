//! What the compiler found of one object, and how far a tenant's policy is enforced: the facts that statuses are made of.

use mcp_fleet_crds::budget::Spending;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::GatewayStatus;

/// The kinds that are compiled into policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `MCPTenant`
    Tenant,
    /// `MCPServer`
    Server,
    /// `MCPScope`
    Scope,
    /// `MCPPrincipal`
    Principal,
    /// `MCPBudget`
    Budget,
}

/// What the compiler made of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether it is part of the policy as it is written.
    pub ok: bool,
    /// Why, for the condition.
    pub reason: ConditionReason,
    /// What is wrong and what to do, for the condition.
    pub message: String,
    /// The `metadata.generation` that was judged.
    pub object_generation: i64,
}

/// How far a tenant's policy is enforced.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TenantState {
    /// The newest published generation; 0: none yet.
    pub generation: u64,
    /// SHA-256 of that policy, in hexadecimal digits.
    pub digest: Option<String>,
    /// The gateways with a control stream, and the generation that each acknowledged by the right digest.
    pub gateways: Vec<GatewayStatus>,
    /// Why the newest policy could not be published, or was refused by a gateway.
    pub error: Option<(ConditionReason, String)>,
    /// Where the tenant's ceiling stands.
    pub spending: Option<Spending>,
}

impl TenantState {
    /// Gateways that enforce the newest generation.
    pub(crate) fn current(&self) -> usize {
        let newest = i64::try_from(self.generation).unwrap_or(i64::MAX);
        self.gateways.iter().filter(|gateway| gateway.policy_generation >= newest).count()
    }
}
