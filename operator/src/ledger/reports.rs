//! Reports of spending: they wait in their book's slot and are written together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Mutex, oneshot};

use super::book::Report;
use super::change::Step;
use super::service::{Ledger, LedgerError, Slot};
use super::store::{Key, Store};

/// The least time between two writes of a book that only carry reports.
pub(crate) const BATCH: Duration = Duration::from_secs(1);
/// How many books are flushed at a time.
const FLUSHES: usize = 8;

/// A report that waits for the next write.
pub(super) struct Waiting {
    pub(super) tenant_uid: String,
    pub(super) report: Report,
    pub(super) done: oneshot::Sender<Result<(), LedgerError>>,
}

impl<S: Store> Ledger<S> {
    /// Hands in a report. What is received later says that it stands in the book, or why it does not.
    pub(crate) async fn report(
        &self,
        tenant_uid: &str,
        budget_uid: &str,
        report: Report,
    ) -> oneshot::Receiver<Result<(), LedgerError>> {
        let (done, receiver) = oneshot::channel();
        let start = report.lease.split_once('.').and_then(|(start, _)| start.parse().ok());
        let Some(start) = start else {
            // Not a lease of this ledger: there is nothing to settle.
            let _ = done.send(Ok(()));
            return receiver;
        };
        let key = Key { budget_uid: budget_uid.to_owned(), start };
        match self.existing(&key).await {
            Err(error) => {
                let _ = done.send(Err(error));
            }
            Ok(None) => {
                let _ = done.send(Ok(()));
            }
            Ok(Some(slot)) => {
                let mut slot = slot.lock().await;
                // A newer report on the same lease says all that an older one does.
                let older = slot.waiting.iter().position(|waiting| {
                    waiting.report.lease == report.lease
                        && waiting.report.holder == report.holder
                        && waiting.report.sequence <= report.sequence
                        && !waiting.report.last
                });
                if let Some(older) = older {
                    slot.waiting.remove(older);
                }
                slot.waiting.push(Waiting { tenant_uid: tenant_uid.to_owned(), report, done });
                self.reported.store(true, Ordering::Release);
            }
        }
        receiver
    }

    /// Writes the reports that wait, for books that were not written within the time of a batch.
    pub(crate) async fn flush(&self) {
        if !self.reported.swap(false, Ordering::Acquire) {
            return;
        }
        let slots: Vec<(Key, Arc<Mutex<Slot>>)> =
            self.slots.lock().iter().map(|(key, slot)| (key.clone(), Arc::clone(slot))).collect();
        // A book that is slow to write holds up few others.
        let each = futures::stream::iter(slots).for_each_concurrent(FLUSHES, async |(key, slot)| {
            let mut slot = slot.lock().await;
            if !slot.waiting.is_empty() && slot.written.is_none_or(|written| written.elapsed() >= self.batch) {
                self.settle(&key, &mut slot).await;
            }
            if !slot.waiting.is_empty() {
                self.reported.store(true, Ordering::Release);
            }
        });
        each.await;
    }

    /// Writes the reports that wait in a slot.
    async fn settle(&self, key: &Key, slot: &mut Slot) {
        let Some(span) = self.span(key) else { return };
        // Applying them is part of every change; so an empty change is enough.
        if let Err(error) = self.change(key, slot, span, |_| Step::Safe(())).await {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "settling is tried again"
            );
        }
    }
}
