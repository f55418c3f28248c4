//! The ledger of all budgets: the books in memory, each with the lock under which it is changed.
//!
//! [`super::leases`] charges leases, [`super::reports`] settles them and [`super::forfeits`] forfeits what is not
//! reported. All of them write through [`super::change`]. [`super::load`] fills the memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::period::Span;
use super::reports::BATCH_INTERVAL;
use super::slot::{Slot, Writer};
use super::store::{BookKey, Store};

/// The books of all budgets.
pub struct Ledger<S> {
    pub(super) store: S,
    pub(super) now_ms: fn() -> i64,
    pub(super) batch_interval: Duration,
    /// The books in memory. Nothing else holds them.
    pub(super) slots: RwLock<HashMap<BookKey, Arc<Slot>>>,
    /// When the pending reports of a book are written. Every book with pending reports is here, unless they are being
    /// written.
    pub(super) due: Mutex<HashMap<BookKey, Instant>>,
}

impl<S> std::fmt::Debug for Ledger<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("books", &self.slots.read().len()).finish_non_exhaustive()
    }
}

impl<S: Store> Ledger<S> {
    /// Creates a ledger that goes by the system's clock. It has no books in memory: nothing may be asked of it before
    /// [`Self::load`].
    pub fn unread(store: S) -> Self {
        Self::new(store, || Timestamp::now().as_millisecond(), BATCH_INTERVAL)
    }

    /// Creates a ledger without books in memory. `now_ms` is the clock, in Unix milliseconds.
    ///
    /// `batch_interval` is the minimum time between two writes of a book that only contain reports.
    pub fn new(store: S, now_ms: fn() -> i64, batch_interval: Duration) -> Self {
        Self { store, now_ms, batch_interval, slots: RwLock::default(), due: Mutex::default() }
    }

    pub(super) fn span(&self, key: &BookKey) -> Option<Span> {
        Some(self.stored(key)?.book.span)
    }

    /// Returns the slot of a book, and adds it if there is none.
    pub(super) fn slot(&self, key: &BookKey) -> Arc<Slot> {
        if let Some(slot) = self.slots.read().get(key) {
            return Arc::clone(slot);
        }
        Arc::clone(self.slots.write().entry(key.clone()).or_default())
    }

    /// Removes a book from memory if the condition holds, unless somebody uses it or something waits for it.
    pub(super) fn remove_slot(&self, key: &BookKey, condition: impl FnOnce(&Slot, &Writer) -> bool) {
        let mut slots = self.slots.write();
        let removable = |slot: &Arc<Slot>| {
            // While the map is locked, nobody can begin to use a slot that only the map refers to.
            let writer = slot.try_lock().filter(|_| Arc::strong_count(slot) == 1);
            writer.is_some_and(|writer| !slot.has_waiting(&writer) && condition(slot, &writer))
        };
        if slots.get(key).is_some_and(removable) {
            slots.remove(key);
        }
    }
}
