//! Grants leases: a lease is charged and written before the gateway receives it.

use std::time::Duration;

use mcp_fleet_policy::model::Budget;
use ulid::Ulid;

use super::book::{Book, GrantedLease, LeaseRequest, Limit, Refusal};
use super::change::Effect;
use super::error::LedgerError;
use super::period::Span;
use super::record::Owner;
use super::service::Ledger;
use super::store::{BookKey, Store};

/// How long a lease may be spent from.
pub(crate) const LEASE_DURATION: Duration = Duration::from_mins(2);
/// The oldest copy of a book that a refusal may be based on: another writer may have returned part of the budget since.
const MAX_AGE_FOR_REFUSAL: Duration = Duration::from_secs(5);

/// Outcome of a lease request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseOutcome {
    /// The lease, or why there is none.
    pub result: Result<GrantedLease, Refusal>,
    /// Period that the lease was charged to.
    pub span: Span,
    /// Leases of other holders that could be returned, as pairs of pod UID and lease. Their holders should be asked to
    /// return them.
    pub recall: Vec<(String, String)>,
}

impl<S: Store> Ledger<S> {
    /// Charges a lease to the current period of a budget. The book has been written when this returns.
    pub(crate) async fn grant(
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
        let used_before = self.used_before(&budget.uid, span.start);
        let limit = Limit {
            micros: budget.amount.map(|amount| amount.get().saturating_sub(used_before.micros)),
            calls: budget.calls.map(|calls| calls.saturating_sub(used_before.calls)),
        };
        let mut writer = slot.lock().await;
        writer.owner = Some(owner.clone());
        writer.span = Some(span);
        let outdated = writer.synced_at.is_none_or(|synced_at| synced_at.elapsed() > MAX_AGE_FOR_REFUSAL);
        let (result, recall) = self
            .change(&key, &slot, &mut writer, span, |book| {
                // If the period of a spend limit was changed, a longer one may begin at the same time.
                book.span.end = book.span.end.max(span.end);
                let result = book.grant(request, limit, id.clone(), deadline);
                match &result {
                    Ok(granted) if granted.new => Effect::Changed((result, Vec::new())),
                    Ok(_) => Effect::NeedsCurrent((result, Vec::new())),
                    Err(_) if outdated => Effect::NeedsCurrent((result, recallable(book, request))),
                    Err(_) => Effect::Unchanged((result, recallable(book, request))),
                }
            })
            .await?;
        drop(writer);
        match &result {
            Err(Refusal::Exhausted) => slot.set_exhausted(true),
            Ok(_) => slot.set_exhausted(false),
            Err(Refusal::Held) => {}
        }
        Ok(LeaseOutcome { result, span, recall })
    }
}

/// Returns up to eight leases of other holders that could be returned, as pairs of pod UID and lease.
fn recallable(book: &Book, request: &LeaseRequest) -> Vec<(String, String)> {
    let others = book.leases.iter().filter(|lease| lease.holder != request.holder);
    others.map(|lease| (lease.holder.pod_uid.clone(), lease.id.clone())).take(8).collect()
}
