//! What the policy compiler made of an object, and how far gateways enforce it.

use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};

use super::status::Summary;
use crate::shared_state::SharedState;
use crate::shared_state::verdict::{Kind, TenantState, Verdict};

/// What the policy compiler made of an object, and how far gateways enforce it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Enforcement {
    /// How far the tenant's policy is enforced.
    pub state: TenantState,
    /// The compiler's verdict on the object; none before it was compiled once.
    pub verdict: Option<Verdict>,
}

impl Enforcement {
    /// Reads what is known now of an object.
    pub(crate) fn read(shared: &SharedState, tenant_uid: &str, kind: Kind, uid: &str) -> Self {
        Self { state: shared.tenant_state(tenant_uid), verdict: shared.verdict(kind, uid) }
    }

    /// Returns the verdict, if the object is not part of the policy as it is written.
    pub(crate) fn rejected(&self) -> Option<&Verdict> {
        self.verdict.as_ref().filter(|verdict| !verdict.ok)
    }

    /// Whether the verdict is about the object as it is written now.
    fn is_compiled(&self, generation: Option<i64>) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.object_generation >= generation.unwrap_or(0))
    }

    /// Returns the condition `PolicyCurrent`: every gateway enforces the newest policy, and that was compiled from the
    /// object as it is written now.
    pub(crate) fn policy_current(&self, generation: Option<i64>) -> NewCondition {
        let (kind, state) = (ConditionType::PolicyCurrent, &self.state);
        if let Some((reason, message)) = &state.error {
            return NewCondition::no(kind, *reason, message);
        }
        if !self.is_compiled(generation) || state.generation == 0 {
            return NewCondition::no(kind, Reason::AwaitingAcknowledgement, "the policy is being compiled");
        }
        let current = state.current();
        if current == 0 || current < state.gateways.len() {
            let message =
                format!("{current} of {} acknowledged policy {}", state.gateways.len().max(1), state.generation);
            return NewCondition::no(kind, Reason::AwaitingAcknowledgement, message);
        }
        NewCondition::yes(kind, Reason::Enforced, format!("all gateways enforce policy {}", state.generation))
    }

    /// Returns the summary of an object for which nothing is applied: it is ready once a gateway enforces the policy that
    /// was compiled from it.
    pub(crate) fn summary(&self, generation: Option<i64>, message: &str) -> Summary {
        match &self.verdict {
            Some(verdict) if !verdict.ok => Summary::Stalled(verdict.reason, verdict.message.clone()),
            Some(_) if self.is_compiled(generation) && self.state.current() > 0 => {
                Summary::Ready(Reason::Reconciled, message.into())
            }
            Some(_) => Summary::Reconciling(
                Reason::AwaitingAcknowledgement,
                "no gateway has acknowledged the newest policy yet".into(),
            ),
            None => Summary::Reconciling(Reason::Progressing, "the policy is being compiled".into()),
        }
    }
}
