//! The status of a budget. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use mcp_fleet_core::shared_state::BudgetState;
use mcp_fleet_core::shared_state::verdict::Verdict;
use mcp_fleet_crds::budget::ToppedUp;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition, find};
use mcp_fleet_crds::names::TOP_UP;
use mcp_fleet_crds::{MCPBudget, MCPBudgetSpec, MCPBudgetStatus, top_up};
use mcp_fleet_policy::model::BudgetMode;
use mcp_fleet_policy::units::Micros;

use super::Known;
use crate::controllers::outcome::Outcome;
use crate::controllers::status;

/// Returns the status that follows from the outcome of a reconcile.
pub(super) fn status(object: &MCPBudget, outcome: &Outcome<Known>, now: Timestamp) -> MCPBudgetStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let (summary, others, spending, top_up) = match outcome.applied() {
        Ok(Known { enforcement, state }) => {
            let mut others = vec![resolved(enforcement.verdict()), enforcement.policy_current(generation)];
            // A new leader does not know the state at once; until then the status before is kept.
            let used_up = used_up_type(object.spec.mode);
            let used_up_before =
                || written_before(&before.conditions, used_up, Reason::LimitReached, Reason::WithinLimit);
            others.extend(state.as_ref().map_or_else(used_up_before, |state| Some(is_used_up(used_up, state))));
            if object.spec.warn_at_percent.is_some() {
                let before = || near_limit_before(&before.conditions);
                others.extend(state.as_ref().map_or_else(before, |it| near_limit(&object.spec, it)));
            }
            others.extend(topped_up(object, state.as_ref(), &before.conditions, now));
            let spending = state.as_ref().map(|state| state.spending.clone());
            let top_up = state.as_ref().map_or(before.top_up, |state| state.top_up.clone());
            (enforcement.summary(generation, "in force"), others, spending.or(before.spending), top_up)
        }
        Err(summary) => (summary, vec![], None, None),
    };
    let conditions = status::conditions(&before.conditions, &summary, others, generation, now);
    MCPBudgetStatus { observed_generation: generation, spending, top_up, conditions }
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

/// Returns the type of the condition that tells whether a budget is used up.
fn used_up_type(mode: BudgetMode) -> ConditionType {
    match mode {
        BudgetMode::Enforce => ConditionType::Exhausted,
        BudgetMode::Monitor => ConditionType::Exceeded,
    }
}

/// Returns the condition `NearLimit` as it was written last.
fn near_limit_before(conditions: &[Condition]) -> Option<NewCondition> {
    written_before(conditions, ConditionType::NearLimit, Reason::WarningReached, Reason::BelowWarning)
}

/// Returns a condition as it was written last; `yes` is its reason when it is True, and `no` when it is False.
fn written_before(conditions: &[Condition], kind: ConditionType, yes: Reason, no: Reason) -> Option<NewCondition> {
    let before = find(conditions, kind)?;
    let reason = [yes, no].into_iter().find(|one| one.as_str() == before.reason)?;
    Some(NewCondition { kind, status: Some(reason == yes), reason, message: before.message.clone() })
}

/// Returns the condition `NearLimit`; none if the budget does not warn.
fn near_limit(spec: &MCPBudgetSpec, state: &BudgetState) -> Option<NewCondition> {
    let percent = spec.warn_at_percent?;
    let reaches = |limit: u64, spent: u64, forfeited: u64| {
        u128::from(spent.saturating_add(forfeited)) * 100 >= u128::from(limit) * u128::from(percent)
    };
    let micros = |amount: Option<Micros>| amount.map_or(0, Micros::get);
    let spending = &state.spending;
    let added = state.top_up.as_ref();
    let money = spec.amount.is_some_and(|limit| {
        let limit = limit.saturating_add(added.and_then(|added| added.amount).unwrap_or_default());
        reaches(limit.get(), micros(spending.spent), micros(spending.forfeited))
    });
    let calls = spec.calls.zip(spending.calls.as_ref());
    let calls = calls.is_some_and(|(limit, calls)| {
        let limit = limit.saturating_add(added.and_then(|added| added.calls).unwrap_or_default());
        reaches(limit, calls.spent, calls.forfeited)
    });
    let kind = ConditionType::NearLimit;
    if money || calls {
        let end = spending.current_period.end.0;
        let message = format!("{percent} % or more of the budget is spent; the next period starts at {end}");
        return Some(NewCondition::yes(kind, Reason::WarningReached, message));
    }
    Some(NewCondition::no(kind, Reason::BelowWarning, ""))
}

/// Returns the condition `ToppedUp`; none without the annotation.
fn topped_up(
    object: &MCPBudget,
    state: Option<&BudgetState>,
    before: &[Condition],
    now: Timestamp,
) -> Option<NewCondition> {
    let kind = ConditionType::ToppedUp;
    let requested = match top_up::parse(object.annotations().get(TOP_UP)?, &object.spec) {
        Ok(requested) => requested,
        Err(error) => return Some(NewCondition::no(kind, Reason::InvalidTopUp, error.to_string())),
    };
    let (start, end) = top_up::bounds(&requested, object.spec.period);
    if now < start || end <= now {
        let message = format!(
            "the annotation {TOP_UP} is for the period from {start} to {end}; write a time in the current period to top it up"
        );
        return Some(NewCondition::no(kind, Reason::TopUpNotInPeriod, message));
    }
    let added = ToppedUp {
        amount: object.spec.amount.map(|_| requested.amount),
        calls: object.spec.calls.map(|_| requested.calls),
    };
    let message = format!("{} is added until {end}", top_up::describe(&added));
    let applied = NewCondition::yes(kind, Reason::TopUpApplied, &message);
    match state {
        Some(state) if state.top_up.as_ref() == Some(&added) => Some(applied),
        // A new leader does not know the state at once.
        None if find(before, kind).is_some_and(|it| it.status == "True" && it.message == message) => Some(applied),
        _ => Some(NewCondition::unknown(kind, Reason::Progressing, "the policy is being compiled")),
    }
}

/// Returns the condition that tells whether a budget is used up.
fn is_used_up(kind: ConditionType, state: &BudgetState) -> NewCondition {
    if state.exhausted {
        let end = state.spending.current_period.end.0;
        let what = if kind == ConditionType::Exceeded {
            "the budget is used up, and calls go on because its mode is Monitor"
        } else {
            "what is left is too little for a call"
        };
        let message = format!("{what}; the next period starts at {end}");
        return NewCondition::yes(kind, Reason::LimitReached, message);
    }
    NewCondition::no(kind, Reason::WithinLimit, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mcp_fleet_core::shared_state::verdict::{PolicyEntry, TenantState};
    use mcp_fleet_crds::condition::is_true;
    use mcp_fleet_crds::tenant::GatewayStatus;
    use mcp_fleet_policy::model::{Budget, TopUp};

    use super::super::state::budget_state;
    use super::super::state::tests::{SPAN, book, budget};
    use super::*;
    use crate::controllers::enforcement::Enforcement;
    use crate::controllers::outcome::{Rejection, Until};

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
        let entry = verdict.cloned().map(|verdict| PolicyEntry { verdict, since: 3, has_address: false });
        let enforcement = Enforcement { state: enforced(), entry, warming_up: false };
        Outcome::Applied(Known { enforcement, state: state.cloned() })
    }

    fn outcome(verdict: &Verdict, state: Option<&BudgetState>) -> Outcome<Known> {
        known(Some(verdict), state)
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
    fn a_budget_warns_when_so_much_of_its_money_or_calls_is_spent() {
        let (verdict, book) = (verdict(true, Reason::Resolved, 2), book());
        let near_limit = |spec: serde_json::Value, known: bool, before: Option<MCPBudgetStatus>| {
            let mut object = MCPBudget { status: before, ..object() };
            object.spec = serde_json::from_value(spec).unwrap();
            let (amount, calls) = (object.spec.amount.map(Micros::get), object.spec.calls);
            let state = budget_state(&budget(amount, calls), SPAN, Some(&book), false);
            let status = status(&object, &outcome(&verdict, known.then_some(&state)), Timestamp::UNIX_EPOCH);
            (find(&status.conditions, ConditionType::NearLimit).map(|it| it.reason.clone()), status)
        };
        let reason = |spec: serde_json::Value| near_limit(spec, true, None).0;
        let (below, reached) = (Some("BelowWarning".to_owned()), Some("WarningReached".to_owned()));
        // The book has 30 millionths and 3 calls settled, and as much leased.
        let money = |amount: &str| serde_json::json!({"period": "Day", "amount": amount, "warnAtPercent": 60});
        assert_eq!(reason(money("0.00005")), reached);
        assert_eq!(reason(money("0.000051")), below);
        let calls = |calls: u64| serde_json::json!({"period": "Day", "calls": calls, "warnAtPercent": 60});
        assert_eq!((reason(calls(5)), reason(calls(6))), (reached.clone(), below));
        let either = serde_json::json!({"period": "Day", "amount": "5", "calls": 5, "warnAtPercent": 60});
        assert_eq!(reason(either), reached);
        assert_eq!(reason(serde_json::json!({"period": "Day", "calls": 5})), None);
        // A new leader that has not summed up the ledger keeps the warning, unless it is no longer wanted.
        let before = near_limit(calls(5), true, None).1;
        assert_eq!(near_limit(calls(5), false, Some(before.clone())).0, reached);
        assert_eq!(near_limit(serde_json::json!({"period": "Day", "calls": 5}), false, Some(before)).0, None);
    }

    #[test]
    fn a_budget_that_monitors_is_exceeded_and_not_exhausted() {
        let verdict = verdict(true, Reason::Resolved, 2);
        let mut object = object();
        object.spec.mode = BudgetMode::Monitor;
        for (limit, reason) in [(30, "LimitReached"), (31, "WithinLimit")] {
            let mut book = book();
            book.leases.clear();
            let state = budget_state(&budget(Some(limit), None), SPAN, Some(&book), false);
            object.status = Some(status(&object, &outcome(&verdict, Some(&state)), Timestamp::UNIX_EPOCH));
            let conditions = &object.status.as_ref().unwrap().conditions;
            assert_eq!(find(conditions, ConditionType::Exceeded).unwrap().reason, reason);
            assert_eq!(find(conditions, ConditionType::Exhausted), None);
            assert!(is_true(conditions, ConditionType::Ready));
        }
        // Once it is enforced, the other condition tells the same.
        object.spec.mode = BudgetMode::Enforce;
        let full = budget_state(&budget(Some(30), None), SPAN, Some(&book()), true);
        let status = status(&object, &outcome(&verdict, Some(&full)), Timestamp::UNIX_EPOCH);
        assert!(is_true(&status.conditions, ConditionType::Exhausted));
        assert_eq!(find(&status.conditions, ConditionType::Exceeded), None);
    }

    #[test]
    fn a_top_up_counts_in_its_period_only_and_moves_the_warning() {
        let verdict = verdict(true, Reason::Resolved, 2);
        let mut topped_up = budget(Some(50), None);
        let now = Timestamp::from_second(SPAN.start + 60).unwrap();
        let condition = |value: Option<&str>, budget: Option<&Budget>, before: Option<MCPBudgetStatus>| {
            let mut object = MCPBudget { status: before, ..object() };
            object.spec.amount = Some(Micros::new(50));
            object.spec.warn_at_percent = Some(60);
            object.metadata.annotations = value.map(|value| [(TOP_UP.to_owned(), value.to_owned())].into());
            let state = budget.map(|budget| budget_state(budget, SPAN, Some(&book()), false));
            let status = status(&object, &outcome(&verdict, state.as_ref()), now);
            let found = find(&status.conditions, ConditionType::ToppedUp);
            (found.map(|it| (it.status.clone(), it.reason.clone(), it.message.clone())), status)
        };
        let reason = |value, budget: &Budget| condition(Some(value), Some(budget), None).0.unwrap().1;
        let value = format!("{now} amount=0.000001");
        assert_eq!(condition(None, Some(&topped_up), None).0, None);
        assert_eq!(reason(&value, &topped_up), "Progressing");
        topped_up.top_up = Some(TopUp { start: SPAN.start, amount: Micros::new(1), calls: 0 });
        let (found, status) = condition(Some(&value), Some(&topped_up), None);
        let (is, reason_, message) = found.clone().unwrap();
        assert_eq!((is.as_str(), reason_.as_str()), ("True", "TopUpApplied"));
        assert_eq!(message, "amount=0.000001 is added until 2026-11-19T00:00:00Z");
        // 30 of 51 are spent, which is less than 60 %.
        assert_eq!(find(&status.conditions, ConditionType::NearLimit).unwrap().reason, "BelowWarning");
        let spending = status.spending.clone().unwrap();
        assert_eq!(status.top_up.clone().unwrap().amount, Some(Micros::new(1)));
        assert_eq!(spending.remaining, Some(Micros::ZERO));
        // A new leader that has not summed up the ledger says the same.
        assert_eq!(condition(Some(&value), None, Some(status)).0, found);
        assert_eq!(reason("2026-11-01T00:00:00Z amount=1", &topped_up), "TopUpNotInPeriod");
        assert_eq!(reason("today amount=1", &topped_up), "InvalidTopUp");
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
