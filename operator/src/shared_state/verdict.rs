//! Verdicts of the compiler on objects, and how far a tenant's policy is enforced. Status is derived from both.

use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::GatewayStatus;

/// Kinds of objects that are compiled into a policy.
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

/// Result of compiling one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the object was compiled as it is written.
    pub ok: bool,
    /// Reason for the condition.
    pub reason: ConditionReason,
    /// Message for the condition: what is wrong, and what to do.
    pub message: String,
    /// `metadata.generation` of the object that was compiled.
    pub object_generation: i64,
}

/// How far a tenant's policy is enforced.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TenantState {
    /// Newest published generation; 0 before the first.
    pub generation: u64,
    /// SHA-256 of the newest published policy, in hexadecimal.
    pub digest: Option<String>,
    /// Connected gateways, with the generation that each acknowledged with the right digest.
    pub gateways: Vec<GatewayStatus>,
    /// Why the newest policy could not be published, or why a gateway refused it.
    pub error: Option<(ConditionReason, String)>,
}

impl TenantState {
    /// Counts the gateways that enforce the newest generation.
    pub(crate) fn current(&self) -> usize {
        let newest = i64::try_from(self.generation).unwrap_or(i64::MAX);
        self.gateways.iter().filter(|gateway| gateway.policy_generation >= newest).count()
    }
}
