//! What is said about a budget. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition, find};
use mcp_fleet_crds::{MCPBudget, MCPBudgetStatus};

use crate::controllers::status::{self, Summary};
use crate::shared_state::BudgetState;
use crate::shared_state::verdict::{TenantState, Verdict};

/// What is known of a budget.
#[derive(Clone, Debug)]
pub(super) enum Facts<'a> {
    /// No tenant claims its namespace.
    Unclaimed,
    /// A tenant does.
    Claimed {
        /// How far the tenant's policy is enforced.
        state: &'a TenantState,
        /// What the compiler made of the budget.
        verdict: Option<&'a Verdict>,
        /// Where it stands.
        figure: Option<&'a BudgetState>,
    },
}

/// The status that follows from it.
pub(super) fn status(object: &MCPBudget, facts: &Facts<'_>, now: Timestamp) -> MCPBudgetStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let (summary, others, spending) = match facts {
        Facts::Unclaimed => {
            let message = "no MCPTenant claims this namespace: the budget limits nothing; ask the platform team";
            (Summary::Stuck(Reason::NamespaceUnclaimed, message.into()), Vec::new(), None)
        }
        Facts::Claimed { state, verdict, figure } => {
            let policy = status::policy_current(state, *verdict, generation);
            let mut others = vec![resolved(*verdict), policy];
            // A new leader knows after a moment; until then what was said before holds.
            others.extend(figure.map_or_else(|| said_before(&before.conditions), |figure| Some(exhausted(figure))));
            let spending = figure.map(|figure| figure.spending.clone());
            (status::in_force(state, *verdict, generation, "in force"), others, spending.or(before.spending))
        }
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

fn said_before(conditions: &[Condition]) -> Option<NewCondition> {
    let before = find(conditions, ConditionType::Exhausted)?;
    let reason = [Reason::LimitReached, Reason::WithinLimit].into_iter().find(|one| one.as_str() == before.reason)?;
    let status = Some(reason == Reason::LimitReached);
    Some(NewCondition { kind: ConditionType::Exhausted, status, reason, message: before.message.clone() })
}

fn exhausted(figure: &BudgetState) -> NewCondition {
    let kind = ConditionType::Exhausted;
    if figure.exhausted {
        let end = figure.spending.current_period.end.0;
        let message = format!("what is left is too little for a call; the budget starts anew at {end}");
        return NewCondition::yes(kind, Reason::LimitReached, message);
    }
    NewCondition::no(kind, Reason::WithinLimit, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mcp_fleet_crds::condition::is_true;
    use mcp_fleet_crds::tenant::GatewayStatus;

    use super::super::figure::figure;
    use super::super::figure::tests::{SPAN, book, budget};
    use super::*;

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
        TenantState { generation: 3, gateways, ..TenantState::default() }
    }

    fn judge(verdict: Option<&Verdict>, figure: Option<&BudgetState>) -> MCPBudgetStatus {
        let state = enforced();
        let facts = Facts::Claimed { state: &state, verdict, figure };
        status(&object(), &facts, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_budget_that_a_gateway_enforces_is_ready_and_shows_its_figures() {
        let figure = figure(&budget(Some(100), None), SPAN, Some(&book()), false);
        let status = judge(Some(&verdict(true, Reason::Resolved, 2)), Some(&figure));
        assert!(is_true(&status.conditions, ConditionType::Ready));
        assert_eq!(find(&status.conditions, ConditionType::Exhausted).unwrap().reason, "WithinLimit");
        assert_eq!(status.spending.unwrap().spent.unwrap().get(), 30);
    }

    #[test]
    fn a_new_leader_that_has_no_figures_yet_changes_nothing() {
        let full = figure(&budget(Some(30), None), SPAN, Some(&book()), true);
        let verdict = verdict(true, Reason::Resolved, 2);
        let mut known = object();
        known.status = Some(judge(Some(&verdict), Some(&full)));
        let state = enforced();
        let facts = Facts::Claimed { state: &state, verdict: Some(&verdict), figure: None };
        assert_eq!(known.status, Some(status(&known, &facts, Timestamp::UNIX_EPOCH)));
    }

    #[test]
    fn a_missing_target_is_named() {
        let status = judge(Some(&verdict(false, Reason::TargetNotFound, 2)), None);
        assert_eq!(find(&status.conditions, ConditionType::ResolvedRefs).unwrap().reason, "TargetNotFound");
        assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().status, "False");
        assert!(is_true(&status.conditions, ConditionType::Stalled));
    }

    #[test]
    fn an_edit_that_was_not_compiled_yet_is_not_ready() {
        let status = judge(Some(&verdict(true, Reason::Resolved, 1)), None);
        assert!(!is_true(&status.conditions, ConditionType::Ready));
    }

    #[test]
    fn a_budget_in_a_namespace_that_nobody_claims_says_so() {
        let status = status(&object(), &Facts::Unclaimed, Timestamp::UNIX_EPOCH);
        assert_eq!(find(&status.conditions, ConditionType::Ready).unwrap().reason, "NamespaceUnclaimed");
    }
}
