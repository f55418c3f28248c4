//! Spend reports: they are queued in the slot of their book and written in batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Mutex, oneshot};

use super::book::Report;
use super::change::Effect;
use super::error::LedgerError;
use super::service::Ledger;
use super::slot::{PendingReport, Slot};
use super::store::{BookKey, Store};

/// Minimum time between two writes of a book that only contain reports.
pub(crate) const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of books that are flushed concurrently.
const MAX_CONCURRENT_FLUSHES: usize = 8;

impl<S: Store> Ledger<S> {
    /// Queues a report. The receiver gets the result once the report is written or rejected; its sender is dropped if a
    /// newer report on the same lease replaces this one.
    pub(crate) async fn report(
        &self,
        tenant_uid: &str,
        budget_uid: &str,
        report: Report,
    ) -> oneshot::Receiver<Result<(), LedgerError>> {
        let (done, receiver) = oneshot::channel();
        let start = report.lease.split_once('.').and_then(|(start, _)| start.parse().ok());
        let Some(start) = start else {
            // This ledger did not issue the lease, so there is nothing to settle.
            let _ = done.send(Ok(()));
            return receiver;
        };
        let key = BookKey { budget_uid: budget_uid.to_owned(), start };
        match self.existing_slot(&key).await {
            Err(error) => {
                let _ = done.send(Err(error));
            }
            Ok(None) => {
                let _ = done.send(Ok(()));
            }
            Ok(Some(slot)) => {
                let mut slot = slot.lock().await;
                // Reports contain totals, so a newer report on the same lease includes the older one.
                let older = slot.pending.iter().position(|pending| {
                    pending.report.lease == report.lease
                        && pending.report.holder == report.holder
                        && pending.report.sequence <= report.sequence
                        && !pending.report.last
                });
                if let Some(older) = older {
                    slot.pending.remove(older);
                }
                slot.pending.push(PendingReport { tenant_uid: tenant_uid.to_owned(), report, done });
                self.has_pending.store(true, Ordering::Release);
            }
        }
        receiver
    }

    /// Writes the pending reports of all books that were not written within the batch interval.
    pub(crate) async fn flush(&self) {
        if !self.has_pending.swap(false, Ordering::Acquire) {
            return;
        }
        let slots: Vec<(BookKey, Arc<Mutex<Slot>>)> =
            self.slots.lock().iter().map(|(key, slot)| (key.clone(), Arc::clone(slot))).collect();
        // A book that is slow to write delays few others.
        let each = futures::stream::iter(slots).for_each_concurrent(MAX_CONCURRENT_FLUSHES, async |(key, slot)| {
            let mut slot = slot.lock().await;
            if !slot.pending.is_empty()
                && slot.written_at.is_none_or(|written_at| written_at.elapsed() >= self.batch_interval)
            {
                self.write_pending(&key, &mut slot).await;
            }
            if !slot.pending.is_empty() {
                self.has_pending.store(true, Ordering::Release);
            }
        });
        each.await;
    }

    /// Writes the pending reports of one slot.
    async fn write_pending(&self, key: &BookKey, slot: &mut Slot) {
        let Some(span) = self.span(key) else { return };
        // Every change applies the pending reports, so an empty change is enough.
        if let Err(error) = self.change(key, slot, span, |_| Effect::Unchanged(())).await {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "failed to write spend reports; retrying"
            );
        }
    }
}
