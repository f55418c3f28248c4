//! Changes one book: computes the change from the last copy that was read, and writes it by compare-and-swap before
//! anyone sees the result.
//!
//! Two operators that both believe they lead may run this at the same time. So each write names the version that it was
//! computed from, and a result that needs no write is first checked against a fresh read.

use super::book::{Book, ReportOutcome};
use super::error::LedgerError;
use super::period::Span;
use super::service::Ledger;
use super::slot::{Slot, Writer};
use super::store::{BookKey, Store, StoreError, StoredBook};

/// Maximum number of attempts to write a book when others write it at the same time.
pub(super) const MAX_ATTEMPTS: usize = 8;

/// What a change did to a book, with the result for the caller.
pub(super) enum Effect<R> {
    /// The book changed. It must be written before the result is used.
    Changed(R),
    /// The book did not change, but the pending reports have to be written.
    WriteReports(R),
    /// The book did not change, but the result is only valid if the copy is current.
    NeedsCurrent(R),
    /// The book did not change, and the result is safe even if the copy is outdated.
    Unchanged(R),
}

impl<S: Store> Ledger<S> {
    /// Changes a book: applies the pending reports, then `step`. The book has been written when this returns. If `step`
    /// changes nothing, the reports wait for their own time.
    pub(super) async fn change<R>(
        &self,
        key: &BookKey,
        slot: &Slot,
        writer: &mut Writer,
        span: Span,
        mut step: impl FnMut(&mut Book) -> Effect<R>,
    ) -> Result<R, LedgerError> {
        let mut fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            if !writer.current {
                fresh = true;
                if !self.reread(key, slot, writer).await? {
                    continue;
                }
            }
            let owner = writer.owner.clone().ok_or(LedgerError::WrongTenant)?;
            let (mut book, version) = match slot.stored() {
                Some(stored) => (stored.book.clone(), Some(stored.version.clone())),
                None => (Book { capacity: owner.capacity(), ..Book::new(span) }, None),
            };
            slot.take_reports(writer);
            let reports: Vec<Result<ReportOutcome, LedgerError>> = writer
                .pending
                .iter()
                .map(|pending| {
                    if pending.tenant_uid != owner.tenant_uid {
                        return Err(LedgerError::WrongTenant);
                    }
                    Ok(book.report(&pending.report)?)
                })
                .collect();
            let (mut changed, mut needs_current, mut write_reports) = (false, false, true);
            let result = match step(&mut book) {
                Effect::Changed(result) => {
                    changed = true;
                    result
                }
                Effect::WriteReports(result) => result,
                Effect::NeedsCurrent(result) => {
                    (needs_current, write_reports) = (true, false);
                    result
                }
                Effect::Unchanged(result) => {
                    write_reports = false;
                    result
                }
            };
            if write_reports {
                changed |= reports.iter().any(|report| matches!(report, Ok(ReportOutcome::Applied)));
                needs_current |= reports.iter().any(|report| !matches!(report, Ok(ReportOutcome::Applied)));
            }
            if changed {
                match self.store.write(key, &owner, &book, version.as_deref()).await {
                    Ok(version) => {
                        slot.start_batch();
                        slot.set(writer, Some(StoredBook { owner, book, version }));
                    }
                    Err(StoreError::Conflict) => {
                        writer.current = false;
                        continue;
                    }
                    Err(error) => {
                        // The write may or may not have happened: only a new read can tell.
                        writer.current = false;
                        return Err(error.into());
                    }
                }
            } else if needs_current && !fresh {
                writer.current = false;
                continue;
            }
            if write_reports {
                for (pending, result) in writer.pending.drain(..).zip(reports) {
                    // The control stream that sent the report may have ended.
                    let _ = pending.done.send(result.map(|_| ()));
                }
            }
            return Ok(result);
        }
        Err(LedgerError::Contended)
    }

    /// Reads a book into memory. One that someone deleted is restored from memory: its budget would start again at zero.
    /// Returns false if another writer was faster, and the book has to be read again.
    pub(super) async fn reread(&self, key: &BookKey, slot: &Slot, writer: &mut Writer) -> Result<bool, StoreError> {
        let found = self.store.read(key).await?;
        let deleted = slot.stored().filter(|stored| found.is_none() && !stored.book.is_closed());
        let Some(deleted) = deleted else {
            slot.set(writer, found);
            return Ok(true);
        };
        match self.store.write(key, &deleted.owner, &deleted.book, None).await {
            Ok(version) => {
                tracing::error!(
                    tenant = deleted.owner.tenant,
                    budget = deleted.owner.budget,
                    "restored a ledger that someone deleted"
                );
                slot.set(writer, Some(StoredBook { version, ..(*deleted).clone() }));
                Ok(true)
            }
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Changes a book when no caller waits for the result. A failure is only logged: the next pass tries again.
    pub(super) async fn change_in_background(&self, key: &BookKey, mut change: impl FnMut(&mut Book) -> bool) {
        let Some(span) = self.span(key) else { return };
        let slot = self.slot(key);
        let mut writer = slot.lock().await;
        let result = self
            .change(key, &slot, &mut writer, span, |book| {
                if change(book) { Effect::Changed(()) } else { Effect::Unchanged(()) }
            })
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
