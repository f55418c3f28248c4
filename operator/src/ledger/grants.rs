//! Granting leases: charged and written before they are answered.

use std::time::Duration;

use mcp_fleet_policy::model::Budget;
use ulid::Ulid;

use super::book::{Ask, Book, Granted, Limit, Refusal};
use super::change::Step;
use super::period::Span;
use super::record::Owner;
use super::service::{Ledger, LedgerError};
use super::store::{Key, Store};

/// How long a lease may be spent.
pub(crate) const VALID: Duration = Duration::from_mins(2);
/// How long a refusal may rest on a book that was not read again: another writer may have given something back.
const REFUSE_UNREAD: Duration = Duration::from_secs(5);

/// What a request for a lease came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The lease, or why there is none.
    pub result: Result<Granted, Refusal>,
    /// The period it was charged to.
    pub span: Span,
    /// Leases of others that could come back: their holders should be asked to end them.
    pub recall: Vec<(String, String)>,
}

impl<S: Store> Ledger<S> {
    /// Charges a lease to the current period of a budget; it is written when this returns.
    pub(crate) async fn grant(&self, owner: &Owner, budget: &Budget, ask: &Ask) -> Result<Answer, LedgerError> {
        let now = (self.now_ms)();
        let span = Span::containing(budget.period, now.div_euclid(1000)).ok_or(LedgerError::Calendar)?;
        let key = Key { budget_uid: budget.uid.clone(), start: span.start };
        let limit = Limit { micros: budget.amount.map(mcp_fleet_policy::units::Micros::get), calls: budget.calls };
        let id = format!("{}.{}", span.start, Ulid::generate());
        let valid = i64::try_from(VALID.as_millis()).unwrap_or(i64::MAX);
        let deadline = now.saturating_add(valid).min(span.end.saturating_mul(1000));
        let slot = self.slot(&key);
        let mut slot = slot.lock().await;
        slot.owner = Some(owner.clone());
        let unread = slot.seen.is_none_or(|seen| seen.elapsed() > REFUSE_UNREAD);
        let (result, recall) = self
            .change(&key, &mut slot, span, |book| {
                let result = book.grant(ask, limit, id.clone(), deadline);
                match &result {
                    Ok(granted) if granted.new => Step::Changed((result, Vec::new())),
                    Ok(_) => Step::Confirm((result, Vec::new())),
                    Err(_) if unread => Step::Confirm((result, recallable(book, ask))),
                    Err(_) => Step::Safe((result, recallable(book, ask))),
                }
            })
            .await?;
        drop(slot);
        self.note(key, &result);
        Ok(Answer { result, span, recall })
    }
}

/// Leases of others that could come back, with the pods that hold them: the first eight.
fn recallable(book: &Book, ask: &Ask) -> Vec<(String, String)> {
    let others = book.leases.iter().filter(|lease| lease.holder != ask.holder);
    others.map(|lease| (lease.holder.pod_uid.clone(), lease.id.clone())).take(8).collect()
}
