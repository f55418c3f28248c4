//! The status of a budget. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition, find};
use mcp_fleet_crds::{MCPBudget, MCPBudgetStatus};

use super::Known;
use crate::controllers::outcome::Outcome;
use crate::controllers::status;
use crate::shared_state::BudgetState;
use crate::shared_state::verdict::Verdict;

/// Returns the status that follows from the outcome of a reconcile.
pub(super) fn status(object: &MCPBudget, outcome: &Outcome<Known>, now: Timestamp) -> MCPBudgetStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let (summary, others, spending) = match outcome.applied() {
        Ok(Known { enforcement, state }) => {
            let mut others = vec![resolved(enforcement.verdict()), enforcement.policy_current(generation)];
            // A new leader does not know the state at once; until then the status before is kept.
            others
                .extend(state.as_ref().map_or_else(|| exhausted_before(&before.conditions), |it| Some(exhausted(it))));
            let spending = state.as_ref().map(|state| state.spending.clone());
            (enforcement.summary(generation, "in force"), others, spending.or(before.spending))
        }
        Err(summary) => (summary, vec![], None),
    };
    let conditions = status::conditions(&before.conditions, &summary, others, generation, now);
    MCPBudgetStatus { observed_generation: generation, spending, conditions }
}

fn resolved(verdict: Option<&Verdict>) -> NewCondition {
    let kind = ConditionType::ResolvedRefs;
    match verdict {
        None => NewCondition::unknown(kind, Reason::Progressing, "the policy is being compiled"),
        Some(verdict) if verdict.reason == Reason::TargetNotFound => {
            NewCondition::no(kind, verdict.reason, &verdict.message)
        }
        Some(_) => NewCondition::yes(kind, Reason::Resolved, ""),
    }
}

/// Returns the condition `Exhausted` as it was written last.
fn exhausted_before(conditions: &[Condition]) -> Option<NewCondition> {
    let before = find(conditions, ConditionType::Exhausted)?;
    let reason = [Reason::LimitReached, Reason::WithinLimit].into_iter().find(|one| one.as_str() == before.reason)?;
    let status = Some(reason == Reason::LimitReached);
    Some(NewCondition { kind: ConditionType::Exhausted, status, reason, message: before.message.clone() })
}

fn exhausted(state: &BudgetState) -> NewCondition {
    let kind = ConditionType::Exhausted;
    if state.exhausted {
        let end = state.spending.current_period.end.0;
        let message = format!("what is left is too little for a call; the next period starts at {end}");
        return NewCondition::yes(kind, Reason::LimitReached, message);
    }
    NewCondition::no(kind, Reason::WithinLimit, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mcp_fleet_crds::condition::is_true;
    use mcp_fleet_crds::tenant::GatewayStatus;

    use super::super::state::budget_state;
    use super::super::state::tests::{SPAN, book, budget};
    use super::*;
    use crate::controllers::enforcement::Enforcement;
    use crate::controllers::outcome::{Rejection, Until};
    use crate::shared_state::verdict::{PolicyEntry, TenantState};

    fn object() -> MCPBudget {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPBudget",
            "metadata": {"name": "daily", "namespace": "acme", "uid": "b-1", "generation": 2},
            "spec": {"period": "Day", "amount": "5.00"},
        }))
        .unwrap()
    }

    fn verdict(ok: bool, reason: Reason, object_generation: i64) -> Verdict {
        Verdict { ok, reason, message: "because".into(), object_generation }
    }

    fn enforced() -> TenantState {
        let gateways = vec![GatewayStatus { pod: "gateway-1".into(), policy_generation: 3 }];
        TenantState { generation: 3, gateways, enforced_by_all: 3, ..TenantState::default() }
    }

    fn known(verdict: Option<&Verdict>, state: Option<&BudgetState>) -> Outcome<Known> {
        let entry = verdict.cloned().map(|verdict| PolicyEntry { verdict, since: 3 });
        let enforcement = Enforcement { state: enforced(), entry, warming_up: false };
        Outcome::Applied(Known { enforcement, state: state.cloned() })
    }

    fn status_with(verdict: Option<&Verdict>, state: Option<&BudgetState>) -> MCPBudgetStatus {
        status(&object(), &known(verdict, state), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_budget_that_a_gateway_enforces_is_ready_and_shows_its_figures() {
        let state = budget_state(&budget(Some(100), None), SPAN, Some(&book()), false);
        let status = status_with(Some(&verdict(true, Reason::Resolved, 2)), Some(&state));
        assert!(is_true(&status.conditions, ConditionType::Ready));
        assert_eq!(find(&status.conditions, ConditionType::Exhausted).unwrap().reason, "WithinLimit");
        assert_eq!(status.spending.unwrap().spent.unwrap().get(), 30);
    }

    #[test]
    fn a_new_leader_without_budget_states_keeps_the_status() {
        let full = budget_state(&budget(Some(30), None), SPAN, Some(&book()), true);
        let verdict = verdict(true, Reason::Resolved, 2);
        let mut before = object();
        before.status = Some(status_with(Some(&verdict), Some(&full)));
        assert_eq!(before.status, Some(status(&before, &known(Some(&verdict), None), Timestamp::UNIX_EPOCH)));
    }

    #[test]
    fn a_missing_target_is_named() {
        let status = status_with(Some(&verdict(false, Reason::TargetNotFound, 2)), None);
        assert_eq!(find(&status.conditions, ConditionType::ResolvedRefs).unwrap().reason, "TargetNotFound");
        assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().status, "False");
        assert!(is_true(&status.conditions, ConditionType::Stalled));
    }

    #[test]
    fn an_edit_is_not_ready_before_it_is_compiled() {
        let status = status_with(Some(&verdict(true, Reason::Resolved, 1)), None);
        assert!(!is_true(&status.conditions, ConditionType::Ready));
    }

    #[test]
    fn a_budget_in_an_unclaimed_namespace_is_not_ready() {
        let rejection =
            Rejection { reason: Reason::NamespaceUnclaimed, message: "unclaimed".into(), until: Until::Changed };
        let status = status(&object(), &Outcome::Rejected(rejection), Timestamp::UNIX_EPOCH);
        assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().reason, "NamespaceUnclaimed");
        assert!(is_true(&status.conditions, ConditionType::Stalled));
    }
}
