//! What the published policy contains of an object, and how far gateways enforce that.

use mcp_fleet_core::shared_state::SharedState;
use mcp_fleet_core::shared_state::verdict::{Kind, PolicyEntry, TenantState, Verdict};
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};

use super::status::{Progress, Summary};

/// What the published policy contains of an object, and how far gateways enforce that.
///
/// An object is enforced once gateways acknowledge the first policy that contains it as it is written. A later policy,
/// which is published because of another object, changes nothing here.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Enforcement {
    /// How far the tenant's policy is enforced.
    pub state: TenantState,
    /// What the policy contains of the object; none before this replica compiled it once.
    pub entry: Option<PolicyEntry>,
    /// Whether gateways may not have found this leader yet.
    pub warming_up: bool,
}

impl Enforcement {
    /// Reads what is known now of an object.
    pub(crate) fn read(shared: &SharedState, tenant_uid: &str, kind: Kind, uid: &str) -> Self {
        let (state, entry) = shared.enforcement(tenant_uid, kind, uid);
        Self { state, entry, warming_up: shared.is_warming_up() }
    }

    /// Returns the compiler's verdict on the object; none before it was compiled once.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.entry.as_ref().map(|entry| &entry.verdict)
    }

    /// Returns the verdict, if the object is not part of the policy as it is written.
    pub(crate) fn rejected(&self) -> Option<&Verdict> {
        self.verdict().filter(|verdict| !verdict.ok)
    }

    /// Whether the policy has an address of a pod of the server.
    pub(crate) fn has_address(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.has_address)
    }

    /// Returns the first generation of the policy that contains the object as it is written now; none if it is not compiled
    /// yet.
    fn since(&self, generation: Option<i64>) -> Option<u64> {
        let entry = self.entry.as_ref()?;
        (entry.verdict.object_generation >= generation.unwrap_or(0)).then_some(entry.since)
    }

    /// Whether all gateways enforce the object as it is written now.
    fn is_enforced_by_all(&self, generation: Option<i64>) -> bool {
        self.since(generation).is_some_and(|since| since <= self.state.enforced_by_all)
    }

    /// Whether a gateway enforces the object as it is written now.
    pub(crate) fn is_enforced_by_any(&self, generation: Option<i64>) -> bool {
        self.since(generation).is_some_and(|since| since <= self.state.enforced_by_any())
    }

    /// Returns how far the object is on its way to the gateways.
    pub(crate) fn progress(&self, generation: Option<i64>) -> Progress {
        match self.entry {
            None => Progress::Unknown,
            Some(_) if self.is_enforced_by_all(generation) => Progress::Settled,
            Some(_) => Progress::Pending,
        }
    }

    /// Returns the condition `PolicyCurrent`: every gateway enforces the object as it is written now.
    pub(crate) fn policy_current(&self, generation: Option<i64>) -> NewCondition {
        let kind = ConditionType::PolicyCurrent;
        if self.is_enforced_by_all(generation) {
            return NewCondition::yes(kind, Reason::Enforced, "all gateways enforce it as it is written");
        }
        if let Some((reason, message)) = &self.state.error {
            return NewCondition::no(kind, *reason, message);
        }
        let message = match self.since(generation) {
            None => "the policy is being compiled",
            Some(_) => "not every gateway has acknowledged it yet",
        };
        NewCondition::no(kind, Reason::AwaitingAcknowledgement, message)
    }

    /// Returns the summary of an object for which nothing is applied: it is ready once a gateway enforces it.
    pub(crate) fn summary(&self, generation: Option<i64>, message: &str) -> Summary {
        match self.verdict() {
            Some(verdict) if !verdict.ok => Summary::Stalled(verdict.reason, verdict.message.clone()),
            Some(_) if self.is_enforced_by_any(generation) => Summary::Ready(Reason::Reconciled, message.into()),
            Some(_) => {
                Summary::Reconciling(Reason::AwaitingAcknowledgement, "no gateway has acknowledged it yet".into())
            }
            None => Summary::Reconciling(Reason::Progressing, "the policy is being compiled".into()),
        }
    }
}
