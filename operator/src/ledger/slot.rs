//! One book in memory, and the lock under which it is changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::period::Span;
use super::record::Owner;
use super::reports::PendingReport;
use super::store::StoredBook;

/// One book, and the reports that are queued for it.
#[derive(Default)]
pub(super) struct Slot {
    /// The book as it was last read or written; none if it was not found. This is the only copy in memory.
    stored: RwLock<Option<Arc<StoredBook>>>,
    /// Whether the budget refused a lease as exhausted and granted none since.
    exhausted: AtomicBool,
    writer: Mutex<Writer>,
}

/// State that belongs to the one who changes the book.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) owner: Option<Owner>,
    /// Period of the leases that were requested; none until one is.
    pub(super) span: Option<Span>,
    /// Whether the copy in memory is the newest version that is known. If not, the book has to be read before a change.
    pub(super) current: bool,
    pub(super) pending: Vec<PendingReport>,
    /// When this replica last wrote the book.
    pub(super) written_at: Option<Instant>,
    /// When the book was last read or written.
    pub(super) synced_at: Option<Instant>,
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
