//! Changes one book: computes the change from the last copy that was read, and writes it by compare-and-swap before
//! anyone sees the result.
//!
//! Two operators that both believe they lead may run this at the same time. So each write names the version that it was
//! computed from, and a result that needs no write is first checked against a fresh read.

use tokio::time::Instant;

use super::book::{Book, ReportOutcome};
use super::error::LedgerError;
use super::period::Span;
use super::service::Ledger;
use super::slot::Slot;
use super::store::{BookKey, Store, StoreError, StoredBook};

/// Maximum number of attempts to write a book when others write it at the same time.
const MAX_ATTEMPTS: usize = 8;

/// What a change did to a book, with the result for the caller.
pub(super) enum Effect<R> {
    /// The book changed. It must be written before the result is used.
    Changed(R),
    /// The book did not change, but the result is only valid if the copy is current.
    NeedsCurrent(R),
    /// The book did not change, and the result is safe even if the copy is outdated.
    Unchanged(R),
}

impl<S: Store> Ledger<S> {
    /// Changes a book: applies the pending reports, then `step`. The book has been written when this returns.
    pub(super) async fn change<R>(
        &self,
        key: &BookKey,
        slot: &mut Slot,
        span: Span,
        mut step: impl FnMut(&mut Book) -> Effect<R>,
    ) -> Result<R, LedgerError> {
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            if slot.stored.is_none() {
                fresh = true;
                if let Some(stored) = self.store.read(key).await? {
                    self.store_in_slot(key, slot, stored);
                }
            }
            let owner = slot.owner.clone().ok_or(LedgerError::WrongTenant)?;
            let (mut book, version) = match &slot.stored {
                Some(stored) => (stored.book.clone(), Some(stored.version.clone())),
                None => (Book::new(span), None),
            };
            let (mut changed, mut needs_current) = (false, false);
            let reports: Vec<Result<ReportOutcome, LedgerError>> = slot
                .pending
                .iter()
                .map(|pending| {
                    if pending.tenant_uid != owner.tenant_uid {
                        return Err(LedgerError::WrongTenant);
                    }
                    let reported = book.report(&pending.report)?;
                    changed |= reported == ReportOutcome::Applied;
                    needs_current |= reported == ReportOutcome::Unchanged;
                    Ok(reported)
                })
                .collect();
            let result = match step(&mut book) {
                Effect::Changed(result) => {
                    changed = true;
                    result
                }
                Effect::NeedsCurrent(result) => {
                    needs_current = true;
                    result
                }
                Effect::Unchanged(result) => result,
            };
            if changed {
                match self.store.write(key, &owner, &book, version.as_deref()).await {
                    Ok(version) => {
                        slot.written_at = Some(Instant::now());
                        self.store_in_slot(key, slot, StoredBook { owner, book, version });
                    }
                    Err(StoreError::Conflict) => {
                        slot.stored = None;
                        continue;
                    }
                    Err(error) => {
                        // The write may or may not have happened: only a new read can tell.
                        slot.stored = None;
                        return Err(error.into());
                    }
                }
            } else if needs_current && !fresh {
                slot.stored = None;
                continue;
            }
            for (pending, result) in slot.pending.drain(..).zip(reports) {
                // The control stream that sent the report may have ended.
                let _ = pending.done.send(result.map(|_| ()));
            }
            return Ok(result);
        }
        Err(LedgerError::Contended)
    }

    /// Changes a book when no caller waits for the result. A failure is only logged: the next pass tries again.
    pub(super) async fn change_in_background(&self, key: &BookKey, mut change: impl FnMut(&mut Book) -> bool) {
        let Some(span) = self.span(key) else { return };
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        let result = self
            .change(key, &mut slot, span, |book| if change(book) { Effect::Changed(()) } else { Effect::Unchanged(()) })
            .await;
        if let Err(error) = result {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "failed to forfeit leases"
            );
        }
    }
}
