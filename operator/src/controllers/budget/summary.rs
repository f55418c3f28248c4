//! Sums up the ledger for the status of all budgets, every few seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::figure::figure;
use crate::context::Context;
use crate::ledger::period::Span;
use crate::shared_state::verdict::Kind;

/// How often the ledger is summed up. A summary costs no I/O, and a status is written only where a figure changed.
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

/// Computes the figures of every budget, and notifies the controllers that show them.
fn sum_up(ctx: &Context) {
    let Some(leading) = ctx.shared_state.policies.leader_state() else { return };
    let now = Timestamp::now().as_second();
    let mut figures = HashMap::new();
    let mut ceilings = Vec::new();
    for published in ctx.shared_state.policies.all() {
        for budget in &published.policy.budgets {
            let Some(span) = Span::containing(budget.period, now) else { continue };
            let book = leading.ledger.book(&budget.uid, span.start);
            let refused = leading.ledger.is_exhausted(&budget.uid, span.start);
            let figure = figure(budget, span, book.as_ref().map(|stored| &stored.book), refused);
            if budget.uid == published.policy.tenant_uid {
                ceilings.push((budget.uid.clone(), figure.spending.clone()));
            }
            figures.insert(budget.uid.clone(), figure);
        }
    }
    for uid in ctx.shared_state.budgets.replace(figures) {
        ctx.shared_state.notify(Kind::Budget, &uid);
    }
    for (tenant_uid, spending) in ceilings {
        ctx.shared_state.update_tenant_state(&tenant_uid, |state| state.spending = Some(spending));
    }
}
