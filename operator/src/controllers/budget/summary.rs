//! Sums up the ledger for the status of all budgets, every few seconds.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mcp_fleet_core::ledger::period::Span;
use mcp_fleet_core::shared_state::{BudgetState, LeaderState};
use mcp_fleet_policy::model::Budget;
use mcp_fleet_policy::units::Micros;
use tokio::time::Instant;

use super::state;
use crate::context::Context;

/// How often the ledger is summed up. A summary costs no I/O, and a status is written only where something changed.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(5);
/// How often changed figures of a tenant's `spendLimit` are shown: a reconcile of a tenant costs more than one of a budget.
const TENANT_INTERVAL: Duration = Duration::from_secs(30);

/// Sums up the ledger periodically. Never returns.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut throttle = Throttle::default();
    loop {
        let now = Timestamp::now().as_second();
        sum_up(&ctx, &mut throttle, |leader, budget| compute(leader, budget, now));
        tokio::time::sleep(SUMMARY_INTERVAL).await;
    }
}

/// Computes the state of every budget, and notifies the controllers that show them. Nothing else shows spend.
pub(super) fn sum_up(
    ctx: &Context,
    throttle: &mut Throttle,
    compute: impl Fn(&LeaderState, &Budget) -> Option<BudgetState>,
) {
    let shared = &ctx.shared_state;
    let Some(leader) = shared.policies.leader_state() else { return };
    let (mut known, mut due) = (BTreeSet::new(), BTreeSet::new());
    for published in shared.policies.all() {
        for budget in &published.policy.budgets {
            known.insert(budget.uid.clone());
            let Some(state) = compute(&leader, budget) else { continue };
            let is_tenant = budget.uid == published.policy.tenant_uid;
            let interval = if is_tenant { TENANT_INTERVAL } else { SUMMARY_INTERVAL };
            if throttle.is_due(&budget.uid, shared.budgets.get(&budget.uid).as_ref(), &state, interval) {
                shared.budgets.set(&budget.uid, state);
                due.insert(budget.uid.clone());
            }
        }
    }
    shared.budgets.retain(|uid| known.contains(uid));
    throttle.shown_at.retain(|uid, _| known.contains(uid));
    shared.notify_spending(due);
}

/// Returns the spend of a budget that its status shows. The UID of a tenant is that of its `spendLimit`.
pub(crate) fn budget_state(ctx: &Context, tenant_uid: &str, budget_uid: &str) -> Option<BudgetState> {
    let shared = &ctx.shared_state;
    shared.budgets.get(budget_uid).or_else(|| {
        // A new budget shows its spend as soon as it is published, so that its status is not written twice.
        let (leader, published) = (shared.policies.leader_state()?, shared.policies.published(tenant_uid)?);
        let budget = published.policy.budgets.iter().find(|budget| budget.uid == budget_uid)?;
        let state = compute(&leader, budget, Timestamp::now().as_second())?;
        shared.budgets.set(budget_uid, state.clone());
        Some(state)
    })
}

/// Computes the spend of a budget from the ledger; none if the time is out of range.
fn compute(leader: &LeaderState, budget: &Budget, now: i64) -> Option<BudgetState> {
    let span = Span::containing(budget.period, now)?;
    let book = leader.ledger.book(&budget.uid, span.start);
    let refused = leader.ledger.is_exhausted(budget, span);
    let state = state::budget_state(budget, span, book.as_ref().map(|stored| &stored.book), refused);
    Some(state::with_used_before(state, leader.ledger.used_before(&budget.uid, span.start)))
}

/// Decides which changes of spend are shown.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// When the figures of each budget were last shown.
    shown_at: HashMap<String, Instant>,
}

impl Throttle {
    /// Returns whether to show the spend of a budget: at once if a period ends, its limit is reached or it is topped up, and otherwise at most
    /// once per interval.
    fn is_due(&mut self, uid: &str, shown: Option<&BudgetState>, state: &BudgetState, interval: Duration) -> bool {
        if shown == Some(state) {
            return false;
        }
        let is_used_up = |state: &BudgetState| state.exhausted || state.spending.remaining == Some(Micros::ZERO);
        let is_urgent = shown.is_none_or(|shown| {
            is_used_up(shown) != is_used_up(state)
                || shown.spending.current_period != state.spending.current_period
                || shown.top_up != state.top_up
        });
        let is_due = is_urgent || self.shown_at.get(uid).is_none_or(|shown_at| shown_at.elapsed() >= interval);
        if is_due {
            self.shown_at.insert(uid.to_owned(), Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{SPAN, book, budget};
    use super::*;

    fn spent(limit: u64) -> BudgetState {
        state::budget_state(&budget(Some(limit), None), SPAN, Some(&book()), false)
    }

    #[tokio::test(start_paused = true)]
    async fn figures_are_shown_once_per_interval_but_a_reached_limit_at_once() {
        let mut throttle = Throttle::default();
        let mut is_due =
            |shown: Option<&BudgetState>, state: &BudgetState| throttle.is_due("b-1", shown, state, TENANT_INTERVAL);
        let (first, second, used_up) = (spent(100), spent(90), spent(60));
        assert!(is_due(None, &first) && !is_due(Some(&first), &first));
        assert!(!is_due(Some(&first), &second) && is_due(Some(&first), &used_up));
        tokio::time::advance(TENANT_INTERVAL).await;
        assert!(is_due(Some(&first), &second));
    }
}
