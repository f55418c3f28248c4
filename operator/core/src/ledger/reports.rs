//! Spend reports: they wait in the slot of their book and are written in batches.
//!
//! A report is acknowledged after it is written. Until then the gateway repeats it to the next leader, so nothing is lost
//! with this process. Meanwhile its spending is covered by the lease, which was charged when it was granted.

use std::time::Duration;

use futures::StreamExt;
use mcp_fleet_ledger::commit::Effect;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::book::Report;
use super::change::Reports;
use super::error::LedgerError;
use super::service::Ledger;
use super::slot::{PendingReport, Slot, Writer};
use super::store::{BookKey, Store};

/// Minimum time between two writes of a book that contain only reports of spending.
///
/// Each write transfers the book whole, to every member of etcd. Gateways report once a second, but nothing waits for
/// such a report: it moves money from leased to settled and frees none. Fifteen seconds is a common scrape interval, so
/// metrics become hardly older, and it is an eighth of the life of a lease. Final reports free money and gateways that
/// stop wait for them, so they are written at once, with all others that wait.
pub(super) const BATCH_INTERVAL: Duration = Duration::from_secs(15);
/// How long after a failed write the next one is attempted. A gateway that stops waits three seconds.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of books that are flushed concurrently.
const MAX_CONCURRENT_FLUSHES: usize = 8;

/// Returns the start of the period that a lease was charged to, or `None` if this ledger did not issue the lease.
pub fn period_start(lease: &str) -> Option<i64> {
    lease.split_once('.').and_then(|(start, _)| start.parse().ok())
}

impl<S: Store> Ledger<S> {
    /// Queues a report: a lease that is granted from now on takes it into account. The receiver gets the result once the report is written or rejected; its sender is dropped if
    /// another report on the same lease includes this one.
    pub fn report(
        &self,
        tenant_uid: &str,
        budget_uid: &str,
        report: Report,
    ) -> oneshot::Receiver<Result<(), LedgerError>> {
        let (done, receiver) = oneshot::channel();
        let Some(start) = period_start(&report.lease) else {
            // This ledger did not issue the lease, so there is nothing to settle.
            let _ = done.send(Ok(()));
            return receiver;
        };
        let key = BookKey { budget_uid: budget_uid.to_owned(), start };
        let slot = self.slot(&key);
        // If the book in memory does not have the lease, it may be outdated. The write finds out.
        let known = slot.stored().is_some_and(|stored| stored.book.has_lease(&report.lease));
        let at_once = report.last || !known;
        let batch_start = slot.enqueue(PendingReport { tenant_uid: tenant_uid.to_owned(), report, at_once, done });
        self.set_due(&key, if at_once { Instant::now() } else { batch_start + self.batch_interval });
        receiver
    }

    /// Sets the time at which the pending reports of a book are written, unless an earlier one is set.
    fn set_due(&self, key: &BookKey, at: Instant) {
        self.due.lock().entry(key.clone()).and_modify(|due| *due = at.min(*due)).or_insert(at);
    }

    /// Writes the pending reports of the books where they are due.
    pub async fn flush(&self) {
        let now = Instant::now();
        let mut keys = Vec::new();
        self.due.lock().retain(|key, due| {
            let wait = *due > now;
            if !wait {
                keys.push(key.clone());
            }
            wait
        });
        // A book that is slow to write delays few others.
        let keys = futures::stream::iter(keys);
        keys.for_each_concurrent(MAX_CONCURRENT_FLUSHES, async |key| self.write_pending(&key).await).await;
    }

    /// Writes the pending reports of one book. If that fails, they remain, and the next attempt is scheduled.
    async fn write_pending(&self, key: &BookKey) {
        let found = self.slots.read().get(key).cloned();
        let Some(slot) = found else { return };
        // Whoever changes the book now takes the reports along, or leaves them for the next pass.
        let Some(mut writer) = slot.try_lock() else { return self.set_due(key, Instant::now()) };
        match slot.due(&writer, self.batch_interval) {
            None => return,
            // The book was written meanwhile, so another batch has begun.
            Some(due) if due > Instant::now() => return self.set_due(key, due),
            Some(_) => {}
        }
        if let Err(error) = self.settle(key, &slot, &mut writer).await {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "failed to write spend reports; retrying"
            );
            self.set_due(key, Instant::now() + RETRY_INTERVAL);
        }
    }

    async fn settle(&self, key: &BookKey, slot: &Slot, writer: &mut Writer) -> Result<(), LedgerError> {
        if !writer.current {
            slot.set(writer, self.store.read(key).await?);
        }
        let Some(stored) = slot.stored() else {
            // There is no such book, so there is nothing to settle.
            slot.take_waiting(writer);
            writer.pending.drain(..).for_each(|pending| drop(pending.done.send(Ok(()))));
            slot.reports_are_written();
            return Ok(());
        };
        self.change(key, slot, writer, stored.book.span, Reports::Write, |_| ((), Effect::Unchanged)).await
    }
}
