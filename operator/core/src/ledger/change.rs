//! Changes one book: computes the change from the last copy that was read, and writes it by compare-and-swap before
//! anyone sees the result. [`mcp_fleet_ledger::commit`] says which reads and writes that takes; here they are made.
//!
//! Everything that waits for a book is part of its next write, and a book is written at most twice a second.

use mcp_fleet_ledger::commit::{self, Commit, Effect, Step};
use tokio::time::Instant;

use super::book::Book;
use super::error::LedgerError;
use super::period::Span;
use super::service::Ledger;
use super::slot::{Slot, Writer};
use super::store::{BookKey, Store, StoreError, StoredBook};

/// Whether the pending reports are written even if nothing else changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reports {
    /// They are.
    Write,
    /// They wait for their own time.
    Wait,
}

impl<S: Store> Ledger<S> {
    /// Changes a book: applies the pending reports and lease requests, then `step`. The book has been written when this
    /// returns, and the lease requests are answered.
    pub(super) async fn change<R>(
        &self,
        key: &BookKey,
        slot: &Slot,
        writer: &mut Writer,
        span: Span,
        reports: Reports,
        step: impl FnMut(&mut Book) -> (R, Effect),
    ) -> Result<R, LedgerError> {
        let result = self.commit(key, slot, writer, span, reports, step).await;
        if let Err(error) = &result {
            // Reports are tried again, but gateways wait for leases.
            writer.refuse_grants(error);
        }
        result
    }

    async fn commit<R>(
        &self,
        key: &BookKey,
        slot: &Slot,
        writer: &mut Writer,
        span: Span,
        reports: Reports,
        mut step: impl FnMut(&mut Book) -> (R, Effect),
    ) -> Result<R, LedgerError> {
        let mut commit = Commit::new(writer.current);
        // The changed book, until it is written, and what is answered afterwards.
        let (mut draft, mut answers) = (None, None);
        loop {
            match commit.step() {
                Step::Read => {
                    if self.reread(key, slot, writer).await? {
                        commit.read();
                    } else {
                        commit.conflicted();
                    }
                }
                Step::Compute => {
                    slot.take_waiting(writer);
                    let owner = writer.owner.clone().ok_or(LedgerError::WrongTenant)?;
                    writer.reject_foreign_reports(&owner);
                    let (mut book, version) = match slot.stored() {
                        Some(stored) => (stored.book.clone(), Some(stored.version.clone())),
                        None => (Book { capacity: owner.capacity(), ..Book::new(span) }, None),
                    };
                    let waiting_reports = writer.pending.iter().map(|pending| &pending.report);
                    let grants = writer.grants.iter().map(|pending| &pending.grant);
                    let results = commit::apply(&mut book, waiting_reports, grants, writer.is_recent());
                    let (result, effect) = step(&mut book);
                    let mut effect = effect.max(results.grants_effect);
                    let write_reports = reports == Reports::Write || effect == Effect::Changed;
                    if write_reports {
                        effect = effect.max(results.reports_effect);
                    }
                    if effect == Effect::Changed
                        && let Some(at) = writer.next_write()
                        && Instant::now() < at
                    {
                        // What arrives meanwhile becomes part of the write.
                        tokio::time::sleep_until(at).await;
                        continue;
                    }
                    commit.computed(effect);
                    draft = Some((owner, book, version));
                    answers = Some((result, results, write_reports));
                }
                Step::Write => {
                    let Some((owner, book, version)) = draft.take() else { return Err(LedgerError::Contended) };
                    writer.written_at = Some(Instant::now());
                    // Until the outcome is known: this future may be dropped before.
                    writer.current = false;
                    match self.store.write(key, &owner, &book, version.as_deref()).await {
                        Ok(version) => {
                            slot.start_batch();
                            slot.set(writer, Some(StoredBook { owner, book, version }));
                            commit.written();
                        }
                        Err(StoreError::Conflict) => commit.conflicted(),
                        // The write may or may not have happened: only a new read can tell.
                        Err(error) => return Err(error.into()),
                    }
                }
                Step::Done => {
                    let Some((result, results, write_reports)) = answers else { return Err(LedgerError::Contended) };
                    if write_reports {
                        writer.acknowledge(results.reports);
                        slot.reports_are_written();
                    }
                    writer.answer(slot, results.grants);
                    return Ok(result);
                }
                Step::Contended => return Err(LedgerError::Contended),
            }
        }
    }

    /// Reads a book into memory. One that someone deleted is restored from memory: its budget would start again at zero.
    /// Returns false if another writer was faster, and the book has to be read again.
    pub(super) async fn reread(&self, key: &BookKey, slot: &Slot, writer: &mut Writer) -> Result<bool, StoreError> {
        writer.current = false;
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
        let step = |book: &mut Book| ((), if change(book) { Effect::Changed } else { Effect::Unchanged });
        if let Err(error) = self.change(key, &slot, &mut writer, span, Reports::Wait, step).await {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "failed to forfeit leases"
            );
        }
    }
}
