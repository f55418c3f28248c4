//! One book in memory, and the lock under which it is changed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mcp_fleet_ledger::commit::Grant;
use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::time::Instant;

use super::book::{GrantedLease, Holder, LeaseRequest, Limit, Refusal, Report, ReportOutcome, ReportRejection};
use super::error::LedgerError;
use super::period::Span;
use super::record::Owner;
use super::store::{BookKey, StoredBook};

/// Minimum time between two writes of a book, so that a budget in heavy use costs the API server two writes a second. A
/// gateway waits a second for a lease.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_millis(500);
/// The oldest copy of a book that a refusal may be based on: another writer may have returned part of the budget since.
const MAX_AGE_FOR_REFUSAL: Duration = Duration::from_secs(5);

/// One book, and what is queued for its next write.
#[derive(Default)]
pub(super) struct Slot {
    /// The book as it was last read or written; none if it was not found. This is the only copy in memory.
    stored: RwLock<Option<Arc<StoredBook>>>,
    /// The limit at which the budget refused a lease as exhausted; none if it granted one since.
    exhausted_at: parking_lot::Mutex<Option<Limit>>,
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

/// Outcome of a lease request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOutcome {
    /// The lease, or why there is none.
    pub result: Result<GrantedLease, Refusal>,
    /// Period that the lease was charged to.
    pub span: Span,
    /// Leases of other holders that could be returned, as pairs of pod UID and lease. Their holders should be asked to
    /// return them.
    pub recall: Vec<(String, String)>,
}

/// A lease request that waits for the next write.
pub(super) struct PendingGrant {
    pub(super) owner: Owner,
    pub(super) span: Span,
    pub(super) grant: Grant,
    pub(super) done: oneshot::Sender<Result<LeaseOutcome, LedgerError>>,
}

/// What arrived since the last change of the book.
struct Inbox {
    reports: Vec<PendingReport>,
    grants: Vec<PendingGrant>,
    /// When the book was last written, or came into memory. Reports that only spend wait for a while after it.
    batch_start: Instant,
    /// When the oldest of `reports` arrived, also if a newer one took its place.
    reported_at: Option<Instant>,
    /// When the oldest report that is part of the next write arrived.
    writing_since: Option<Instant>,
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
    /// Lease requests that are part of the next write.
    pub(super) grants: Vec<PendingGrant>,
    /// When the book was last read or written.
    pub(super) synced_at: Option<Instant>,
    /// When the last write began, whether it succeeded or not.
    pub(super) written_at: Option<Instant>,
}

impl Writer {
    /// Returns when the book may be written next; none if it was never written.
    pub(super) fn next_write(&self) -> Option<Instant> {
        Some(self.written_at? + WRITE_INTERVAL)
    }

    /// Returns whether the copy in memory is recent enough to refuse a lease.
    pub(super) fn is_recent(&self) -> bool {
        self.synced_at.is_some_and(|synced_at| synced_at.elapsed() <= MAX_AGE_FOR_REFUSAL)
    }

    /// Rejects the reports that do not come from the owner's tenant.
    pub(super) fn reject_foreign_reports(&mut self, owner: &Owner) {
        for foreign in self.pending.extract_if(.., |pending| pending.tenant_uid != owner.tenant_uid) {
            let _ = foreign.done.send(Err(LedgerError::WrongTenant));
        }
    }

    /// Acknowledges the pending reports: they are part of the book.
    pub(super) fn acknowledge(&mut self, results: Vec<Result<ReportOutcome, ReportRejection>>) {
        for (pending, result) in self.pending.drain(..).zip(results) {
            // The control stream that sent the report may have ended.
            let _ = pending.done.send(result.map(|_| ()).map_err(LedgerError::from));
        }
    }

    /// Answers the pending lease requests: the leases are part of the book.
    pub(super) fn answer(&mut self, slot: &Slot, results: Vec<Result<GrantedLease, Refusal>>) {
        let stored = slot.stored();
        let recallable =
            |holder: &Holder| stored.as_ref().map_or_else(Vec::new, |stored| stored.book.recallable(holder));
        for (pending, result) in self.grants.drain(..).zip(results) {
            match &result {
                // A gateway asks ahead of need, while it still has a lease.
                Err(Refusal::Exhausted) if stored.as_ref().is_some_and(|stored| has_enough(stored, &pending)) => {}
                Err(Refusal::Exhausted) => slot.set_exhausted(Some(pending.grant.limit)),
                Ok(_) => slot.set_exhausted(None),
                Err(Refusal::Held) => {}
            }
            let recall = if result.is_err() { recallable(&pending.grant.request.holder) } else { Vec::new() };
            let _ = pending.done.send(Ok(LeaseOutcome { result, span: pending.span, recall }));
        }
    }

    /// Answers the pending lease requests with an error.
    pub(super) fn refuse_grants(&mut self, error: &LedgerError) {
        for pending in self.grants.drain(..) {
            let _ = pending.done.send(Err(error.clone()));
        }
    }
}

/// Returns whether the holder that requests a lease has another with enough for a call.
fn has_enough(stored: &StoredBook, pending: &PendingGrant) -> bool {
    let LeaseRequest { holder, minimum, .. } = &pending.grant.request;
    let mut held = stored.book.leases.iter().filter(|lease| lease.holder == *holder);
    held.any(|lease| {
        let left = lease.outstanding();
        lease.granted.micros.is_none_or(|_| left.micros >= minimum.micros)
            && lease.granted.calls.is_none_or(|_| left.calls >= minimum.calls)
    })
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            reports: Vec::new(),
            grants: Vec::new(),
            batch_start: Instant::now(),
            reported_at: None,
            writing_since: None,
        }
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
        inbox.reported_at.get_or_insert_with(Instant::now);
        add(&mut inbox.reports, report);
        inbox.batch_start
    }

    /// Returns when the waiting reports are to be written; none if there are none.
    pub(super) fn due(&self, writer: &Writer, interval: Duration) -> Option<Instant> {
        let inbox = self.inbox.lock();
        let mut waiting = writer.pending.iter().chain(&inbox.reports).peekable();
        waiting.peek()?;
        let due = if waiting.any(|pending| pending.at_once) { inbox.batch_start } else { inbox.batch_start + interval };
        Some(writer.next_write().map_or(due, |next| next.max(due)))
    }

    /// Adds a lease request for the next write, also while the book is being written.
    pub(super) fn enqueue_grant(&self, grant: PendingGrant) {
        self.inbox.lock().grants.push(grant);
    }

    /// Makes what has arrived part of the next write.
    pub(super) fn take_waiting(&self, writer: &mut Writer) {
        let (reports, grants) = {
            let mut inbox = self.inbox.lock();
            let arrived = inbox.reported_at.take();
            inbox.writing_since = inbox.writing_since.or(arrived);
            (std::mem::take(&mut inbox.reports), std::mem::take(&mut inbox.grants))
        };
        for report in reports {
            add(&mut writer.pending, report);
        }
        for grant in grants {
            writer.owner = Some(grant.owner.clone());
            writer.span = Some(grant.span);
            writer.grants.push(grant);
        }
        // Nobody waits any more for the answer to a request whose stream has ended.
        writer.grants.retain(|grant| !grant.done.is_closed());
    }

    /// Returns whether anything waits for a write.
    pub(super) fn has_waiting(&self, writer: &Writer) -> bool {
        let inbox = self.inbox.lock();
        let reports = !writer.pending.is_empty() || !inbox.reports.is_empty();
        reports || !writer.grants.is_empty() || !inbox.grants.is_empty()
    }

    /// Records that the reports that were part of the next write are written, or belong to no book.
    pub(super) fn reports_are_written(&self) {
        self.inbox.lock().writing_since = None;
    }

    /// Returns how long the oldest report has waited to be written; none if no report waits.
    pub(super) fn oldest_report(&self) -> Option<Duration> {
        let inbox = self.inbox.lock();
        Some(inbox.writing_since.or(inbox.reported_at)?.elapsed())
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

    /// Returns whether a lease was refused because the budget is exhausted at this limit, and none was granted since.
    pub(super) fn is_exhausted(&self, limit: Limit) -> bool {
        *self.exhausted_at.lock() == Some(limit)
    }

    fn set_exhausted(&self, at: Option<Limit>) {
        *self.exhausted_at.lock() = at;
    }
}
