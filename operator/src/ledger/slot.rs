//! One book in memory, and the lock under which it is changed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::time::Instant;

use super::book::Report;
use super::error::LedgerError;
use super::period::Span;
use super::record::Owner;
use super::store::{BookKey, StoredBook};

/// One book, and the reports that are queued for it.
#[derive(Default)]
pub(super) struct Slot {
    /// The book as it was last read or written; none if it was not found. This is the only copy in memory.
    stored: RwLock<Option<Arc<StoredBook>>>,
    /// Whether the budget refused a lease as exhausted and granted none since.
    exhausted: AtomicBool,
    /// Books of the same period of earlier budgets with the same name, once a lease was requested.
    pub(super) predecessors: OnceLock<Vec<BookKey>>,
    inbox: parking_lot::Mutex<Inbox>,
    writer: Mutex<Writer>,
}

/// A report that waits for the next write.
pub(super) struct PendingReport {
    pub(super) tenant_uid: String,
    pub(super) report: Report,
    /// Whether the report is written without waiting for the batch.
    pub(super) at_once: bool,
    pub(super) done: oneshot::Sender<Result<(), LedgerError>>,
}

/// Reports that arrived since the last change of the book.
struct Inbox {
    reports: Vec<PendingReport>,
    /// When the book was last written, or came into memory. Reports that only spend wait for a while after it.
    batch_start: Instant,
}

/// State that belongs to the one who changes the book.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) owner: Option<Owner>,
    /// Period of the leases that were requested; none until one is.
    pub(super) span: Option<Span>,
    /// Whether the copy in memory is the newest version that is known. If not, the book has to be read before a change.
    pub(super) current: bool,
    /// Reports that are part of the next write; one for each lease.
    pub(super) pending: Vec<PendingReport>,
    /// When the book was last read or written.
    pub(super) synced_at: Option<Instant>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { reports: Vec::new(), batch_start: Instant::now() }
    }
}

/// Adds a report in place of an earlier one on the same lease: reports contain totals, so a newer one includes the older
/// ones. Drops the report if it is the older one.
fn add(reports: &mut Vec<PendingReport>, new: PendingReport) {
    let same = |old: &PendingReport| old.report.lease == new.report.lease && old.report.holder == new.report.holder;
    if let Some(index) = reports.iter().position(same) {
        let old = &reports[index].report;
        if old.sequence > new.report.sequence || (old.last && !new.report.last) {
            return;
        }
        reports.swap_remove(index);
    }
    reports.push(new);
}

impl Slot {
    /// Returns the book as it was last read or written.
    pub(super) fn stored(&self) -> Option<Arc<StoredBook>> {
        self.stored.read().clone()
    }

    /// Waits until nobody else changes the book.
    pub(super) async fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().await
    }

    /// Returns the lock; none while somebody changes the book.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Writer>> {
        self.writer.try_lock().ok()
    }

    /// Adds a report for the next write, also while the book is being written. Returns when the batch began.
    pub(super) fn enqueue(&self, report: PendingReport) -> Instant {
        let mut inbox = self.inbox.lock();
        add(&mut inbox.reports, report);
        inbox.batch_start
    }

    /// Returns when the waiting reports are to be written; none if there are none.
    pub(super) fn due(&self, writer: &Writer, interval: Duration) -> Option<Instant> {
        let inbox = self.inbox.lock();
        let mut waiting = writer.pending.iter().chain(&inbox.reports).peekable();
        waiting.peek()?;
        Some(if waiting.any(|pending| pending.at_once) { inbox.batch_start } else { inbox.batch_start + interval })
    }

    /// Makes the reports that have arrived part of the next write.
    pub(super) fn take_reports(&self, writer: &mut Writer) {
        for report in std::mem::take(&mut self.inbox.lock().reports) {
            add(&mut writer.pending, report);
        }
    }

    /// Returns whether reports wait for a write.
    pub(super) fn has_reports(&self, writer: &Writer) -> bool {
        !writer.pending.is_empty() || !self.inbox.lock().reports.is_empty()
    }

    /// Begins a batch: the book was just written.
    pub(super) fn start_batch(&self) {
        self.inbox.lock().batch_start = Instant::now();
    }

    /// Replaces the copy in memory by what was just read or written.
    pub(super) fn set(&self, writer: &mut Writer, stored: Option<StoredBook>) {
        if let Some(stored) = &stored {
            writer.owner = Some(stored.owner.clone());
        }
        *self.stored.write() = stored.map(Arc::new);
        writer.current = true;
        writer.synced_at = Some(Instant::now());
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Acquire)
    }

    pub(super) fn set_exhausted(&self, exhausted: bool) {
        self.exhausted.store(exhausted, Ordering::Release);
    }
}
