//! Sums up the ledger for the status of all budgets, every few seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::state::budget_state;
use crate::context::Context;
use crate::ledger::period::Span;
use crate::shared_state::verdict::Kind;

/// How often the ledger is summed up. A summary costs no I/O, and a status is written only where something changed.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(5);
/// How often new budgets are looked for. They are summed up at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Sums up the ledger periodically. Never returns.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut last = None;
    loop {
        if last.is_none_or(|last: Instant| last.elapsed() >= SUMMARY_INTERVAL) || has_new_budget(&ctx) {
            sum_up(&ctx);
            last = Some(Instant::now());
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Whether there is a budget that has not been summed up yet.
fn has_new_budget(ctx: &Context) -> bool {
    let all = ctx.shared_state.policies.all();
    let mut budgets = all.iter().flat_map(|published| &published.policy.budgets);
    budgets.any(|budget| ctx.shared_state.budgets.get(&budget.uid).is_none())
}

/// Computes the state of every budget, and notifies the controllers that show them.
fn sum_up(ctx: &Context) {
    let Some(leader) = ctx.shared_state.policies.leader_state() else { return };
    let now = Timestamp::now().as_second();
    let mut states = HashMap::new();
    let mut spend_limits = Vec::new();
    for published in ctx.shared_state.policies.all() {
        for budget in &published.policy.budgets {
            let Some(span) = Span::containing(budget.period, now) else { continue };
            let book = leader.ledger.book(&budget.uid, span.start);
            let refused = leader.ledger.is_exhausted(&budget.uid, span.start);
            let state = budget_state(budget, span, book.as_ref().map(|stored| &stored.book), refused);
            if budget.uid == published.policy.tenant_uid {
                spend_limits.push((budget.uid.clone(), state.spending.clone()));
            }
            states.insert(budget.uid.clone(), state);
        }
    }
    for uid in ctx.shared_state.budgets.replace(states) {
        ctx.shared_state.notify(Kind::Budget, &uid);
    }
    for (tenant_uid, spending) in spend_limits {
        ctx.shared_state.update_tenant_state(&tenant_uid, |state| state.spending = Some(spending));
    }
}
