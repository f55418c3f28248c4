//! One change of one book: computed from what was read last, written by compare-and-swap before it counts.
//!
//! Two operators that both believe they lead may run this at once: each write names the version it was computed
//! from, and what is answered without a write is checked against a fresh read first.

use tokio::time::Instant;

use super::book::{Book, Reported};
use super::period::Span;
use super::service::{Ledger, LedgerError, Slot};
use super::store::{Key, Store, StoreError, Stored};

/// How often a write is tried anew when somebody else was faster.
const ATTEMPTS: usize = 8;

/// What a change of a book came to.
pub(super) enum Step<R> {
    /// It was changed and has to be written before the answer counts.
    Changed(R),
    /// It was not changed, but the answer counts only for the book as it is now.
    Confirm(R),
    /// It was not changed, and the answer is safe even for an old book.
    Safe(R),
}

impl<S: Store> Ledger<S> {
    /// Changes a book: first by the reports that wait, then by `step`; written before this returns.
    pub(super) async fn change<R>(
        &self,
        key: &Key,
        slot: &mut Slot,
        span: Span,
        mut step: impl FnMut(&mut Book) -> Step<R>,
    ) -> Result<R, LedgerError> {
        let mut fresh = false;
        for _ in 0..ATTEMPTS {
            if slot.stored.is_none() {
                fresh = true;
                if let Some(stored) = self.store.read(key).await? {
                    self.remember(key, slot, stored);
                }
            }
            let owner = slot.owner.clone().ok_or(LedgerError::Foreign)?;
            let (mut book, version) = match &slot.stored {
                Some(stored) => (stored.book.clone(), Some(stored.version.clone())),
                None => (Book::new(span), None),
            };
            let (mut changed, mut confirm) = (false, false);
            let reports: Vec<Result<Reported, LedgerError>> = slot
                .waiting
                .iter()
                .map(|waiting| {
                    if waiting.tenant_uid != owner.tenant_uid {
                        return Err(LedgerError::Foreign);
                    }
                    let reported = book.report(&waiting.report)?;
                    changed |= reported == Reported::Applied;
                    confirm |= reported == Reported::Known;
                    Ok(reported)
                })
                .collect();
            let result = match step(&mut book) {
                Step::Changed(result) => {
                    changed = true;
                    result
                }
                Step::Confirm(result) => {
                    confirm = true;
                    result
                }
                Step::Safe(result) => result,
            };
            if changed {
                match self.store.write(key, &owner, &book, version.as_deref()).await {
                    Ok(version) => {
                        slot.written = Some(Instant::now());
                        self.remember(key, slot, Stored { owner, book, version });
                    }
                    Err(StoreError::Conflict) => {
                        slot.stored = None;
                        continue;
                    }
                    Err(error) => {
                        // It may or may not be written: only a new read can tell.
                        slot.stored = None;
                        return Err(error.into());
                    }
                }
            } else if confirm && !fresh {
                slot.stored = None;
                continue;
            }
            for (waiting, report) in slot.waiting.drain(..).zip(reports) {
                // The holder may have gone away in the meantime.
                let _ = waiting.done.send(report.map(|_| ()));
            }
            return Ok(result);
        }
        Err(LedgerError::Contended)
    }

    /// Changes a book without anybody waiting for it; what fails is tried again with the next tick.
    pub(super) async fn quietly(&self, key: &Key, mut change: impl FnMut(&mut Book) -> bool) {
        let Some(span) = self.span(key) else { return };
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        let result = self
            .change(key, &mut slot, span, |book| if change(book) { Step::Changed(()) } else { Step::Safe(()) })
            .await;
        if let Err(error) = result {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "forfeiting is tried again"
            );
        }
    }
}
