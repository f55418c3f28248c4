//! The ledger of all budgets: a cache of the books, and for each book the lock under which it is changed.
//!
//! [`super::leases`] charges leases, [`super::reports`] settles them and [`super::forfeits`] forfeits what is not
//! reported. All of them write through [`super::change`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::book::Row;
use super::error::LedgerError;
use super::period::Span;
use super::slot::Slot;
use super::store::{BookKey, Store, StoredBook};

/// The books of all budgets.
pub(crate) struct Ledger<S> {
    pub(super) store: S,
    pub(super) now_ms: fn() -> i64,
    pub(super) batch_interval: Duration,
    pub(super) slots: parking_lot::Mutex<HashMap<BookKey, Arc<Mutex<Slot>>>>,
    /// The books as they were last read or written.
    pub(super) cache: RwLock<HashMap<BookKey, Arc<StoredBook>>>,
    /// Settled money of removed books, by UID of the budget and names of the row.
    pub(super) retired: RwLock<HashMap<(String, Row), u64>>,
    /// Budgets that refused a lease as exhausted and granted none since.
    pub(super) exhausted: RwLock<HashSet<BookKey>>,
    /// Whether any slot may have pending reports.
    pub(super) has_pending: AtomicBool,
}

impl<S> std::fmt::Debug for Ledger<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("books", &self.cache.read().len()).finish_non_exhaustive()
    }
}

impl<S: Store> Ledger<S> {
    /// Creates a ledger with an empty cache. `now_ms` is the clock, in Unix milliseconds.
    ///
    /// `batch_interval` is the minimum time between two writes of a book that only contain reports.
    pub(crate) fn new(store: S, now_ms: fn() -> i64, batch_interval: Duration) -> Self {
        Self {
            store,
            now_ms,
            batch_interval,
            slots: parking_lot::Mutex::default(),
            cache: RwLock::default(),
            retired: RwLock::default(),
            exhausted: RwLock::default(),
            has_pending: AtomicBool::new(false),
        }
    }

    /// Reads all books. A new leader does so first, and then periodically, because an old leader may have written late.
    pub(crate) async fn load(&self) -> Result<(), LedgerError> {
        let started = Instant::now();
        for (key, stored) in self.store.list().await? {
            let slot = self.slot(&key);
            let mut slot = slot.lock().await;
            if slot.written_at.is_some_and(|written_at| written_at >= started) {
                continue;
            }
            slot.owner = Some(stored.owner.clone());
            self.store_in_slot(&key, &mut slot, stored);
        }
        Ok(())
    }

    pub(super) fn span(&self, key: &BookKey) -> Option<Span> {
        self.cache.read().get(key).map(|stored| stored.book.span)
    }

    pub(super) fn slot(&self, key: &BookKey) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            Arc::new(Mutex::new(Slot {
                owner: None,
                stored: None,
                pending: Vec::new(),
                written_at: None,
                synced_at: None,
            }))
        });
        Arc::clone(slot)
    }

    /// Returns the slot of a book that exists in memory or in the store; none otherwise.
    pub(super) async fn existing_slot(&self, key: &BookKey) -> Result<Option<Arc<Mutex<Slot>>>, LedgerError> {
        let existing = self.slots.lock().get(key).cloned();
        if let Some(slot) = existing {
            return Ok(Some(slot));
        }
        let Some(stored) = self.store.read(key).await? else { return Ok(None) };
        let slot = self.slot(key);
        let mut guard = slot.lock().await;
        if guard.stored.is_none() {
            guard.owner = Some(stored.owner.clone());
            self.store_in_slot(key, &mut guard, stored);
        }
        drop(guard);
        Ok(Some(slot))
    }

    pub(super) fn store_in_slot(&self, key: &BookKey, slot: &mut Slot, stored: StoredBook) {
        self.cache.write().insert(key.clone(), Arc::new(stored.clone()));
        slot.stored = Some(stored);
        slot.synced_at = Some(Instant::now());
    }
}
