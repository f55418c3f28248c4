//! Grants leases: a lease is charged and written before the gateway receives it.

use mcp_fleet_ledger::commit::{Effect, Grant};
use mcp_fleet_policy::budget::BudgetBalance;
use mcp_fleet_policy::model::{Budget, BudgetMode};
use mcp_fleet_policy::units::Micros;
use tokio::sync::oneshot;
use ulid::Ulid;

use super::book::{LEASE_DURATION, Lease, LeaseRequest, Limit};
use super::change::Reports;
use super::error::LedgerError;
use super::period::Span;
use super::record::Owner;
use super::service::Ledger;
use super::slot::{LeaseOutcome, PendingGrant};
use super::store::{BookKey, Store};

impl<S: Store> Ledger<S> {
    /// Charges a lease to the current period of a budget. The book has been written when this returns: together with all
    /// other requests and reports that wait for it, as it is not written more than twice a second.
    pub async fn grant(
        &self,
        owner: &Owner,
        budget: &Budget,
        request: &LeaseRequest,
    ) -> Result<LeaseOutcome, LedgerError> {
        let now = (self.now_ms)();
        let span = Span::containing(budget.period, now.div_euclid(1000)).ok_or(LedgerError::NoPeriod)?;
        let key = BookKey { budget_uid: budget.uid.clone(), start: span.start };
        let id = format!("{}.{}", span.start, Ulid::generate());
        let valid = i64::try_from(LEASE_DURATION.as_millis()).unwrap_or(i64::MAX);
        let deadline = now.saturating_add(valid).min(span.end.saturating_mul(1000));
        let slot = self.slot(&key);
        let find = || if owner.is_spend_limit() { Vec::new() } else { self.predecessors(owner, span) };
        slot.predecessors.get_or_init(find);
        let limit = self.limit(budget, span);
        let grant = Grant { request: request.clone(), limit, id, deadline, period_end: span.end };
        let (done, mut answer) = oneshot::channel();
        slot.enqueue_grant(PendingGrant { owner: owner.clone(), span, grant, done });
        let mut writer = slot.lock().await;
        // If somebody else has written the book meanwhile, this request was part of it.
        if let Ok(outcome) = answer.try_recv() {
            return outcome;
        }
        self.change(&key, &slot, &mut writer, span, Reports::Wait, |_| ((), Effect::Unchanged)).await?;
        drop(writer);
        answer.await.unwrap_or(Err(LedgerError::Contended))
    }

    /// Returns what a budget allows in a period, top-up included, without what earlier budgets with the same name have used.
    /// One that only monitors allows everything.
    pub(super) fn limit(&self, budget: &Budget, span: Span) -> Limit {
        if budget.mode == BudgetMode::Monitor { Limit::default() } else { self.written_limit(budget, span) }
    }

    /// Returns the limits of a budget in a period, top-up included, without what earlier budgets with the same name have used.
    fn written_limit(&self, budget: &Budget, span: Span) -> Limit {
        let used_before = self.used_before(&budget.uid, span.start);
        let (amount, calls) = budget.limits_in(span.start);
        Limit {
            micros: amount.map(|amount| amount.get().saturating_sub(used_before.micros)),
            calls: calls.map(|calls| calls.saturating_sub(used_before.calls)),
        }
    }

    /// Returns what the book of the period with this start says about a budget, if it is in memory. Agents are shown it.
    pub fn balance(&self, budget: &Budget, start: i64) -> Option<BudgetBalance> {
        // Before the book is read, so that a newer book never has an older time.
        let as_of = (self.now_ms)();
        let stored = self.book(&budget.uid, start)?;
        let limit = self.written_limit(budget, stored.book.span);
        let (left, spent) = (limit.remaining(stored.book.charged()), stored.book.settled());
        Some(BudgetBalance {
            budget_uid: budget.uid.clone(),
            left_amount: limit.micros.map(|_| Micros::new(left.micros)),
            left_calls: limit.calls.map(|_| left.calls),
            spent_amount: Micros::new(spent.micros),
            spent_calls: spent.calls,
            period_end: stored.book.span.end,
            as_of,
        })
    }

    /// Returns the open leases of a budget that have to be returned, as pairs of pod UID and lease: all of them, if more is
    /// charged to the current period than the budget allows, which is so after its limit was lowered; and those that were
    /// granted while the budget did not limit what it limits now. No lease is granted until what is charged fits.
    pub fn over_limit(&self, budget: &Budget) -> Vec<(String, String)> {
        let Some(span) = Span::containing(budget.period, (self.now_ms)().div_euclid(1000)) else { return Vec::new() };
        let Some(stored) = self.book(&budget.uid, span.start) else { return Vec::new() };
        let limit = self.limit(budget, span);
        let fits = limit.allows(stored.book.charged());
        let is_unlimited = |lease: &&Lease| {
            limit.micros.is_some() && lease.granted.micros.is_none()
                || limit.calls.is_some() && lease.granted.calls.is_none()
        };
        let leases = stored.book.leases.iter().filter(|lease| !fits || is_unlimited(lease));
        leases.map(|lease| (lease.holder.pod_uid.clone(), lease.id.clone())).collect()
    }
}
