//! The ledger of all budgets: its books in memory, each with the lock under which it is changed.
//!
//! [`super::grants`] charges leases, [`super::reports`] settles them, [`super::forfeits`] gives up what is not reported; all
//! of them write through [`super::change`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::book::{ReportError, Row};
use super::period::Span;
use super::record::Owner;
use super::reports::Waiting;
use super::store::{Key, Store, StoreError, Stored};

/// Why the ledger gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// It could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others kept writing in between.
    #[error("failed to write a ledger: too many others write it")]
    Contended,
    /// The calendar has no such period.
    #[error("failed to find the period of a budget")]
    Calendar,
    /// The report cannot be true.
    #[error("failed to apply a report")]
    Report(#[from] ReportError),
    /// The book belongs to another tenant.
    #[error("failed to apply a report: the lease is another tenant's")]
    Foreign,
}

/// One book and what is known of it.
pub(super) struct Slot {
    pub(super) owner: Option<Owner>,
    pub(super) stored: Option<Stored>,
    pub(super) waiting: Vec<Waiting>,
    /// When it was written last by this replica.
    pub(super) written: Option<Instant>,
    /// When it was read or written last.
    pub(super) seen: Option<Instant>,
}

/// The books of all budgets.
pub(crate) struct Ledger<S> {
    pub(super) store: S,
    pub(super) now_ms: fn() -> i64,
    pub(super) batch: Duration,
    pub(super) slots: parking_lot::Mutex<HashMap<Key, Arc<Mutex<Slot>>>>,
    pub(super) known: RwLock<HashMap<Key, Arc<Stored>>>,
    /// Settled money of removed books, by the budget's UID and the names of a row.
    pub(super) retired: RwLock<HashMap<(String, Row), u64>>,
    /// Budgets that refused a lease since their last grant.
    pub(super) exhausted: RwLock<HashSet<Key>>,
    /// Reports came in since the last flush that left none waiting.
    pub(super) reported: AtomicBool,
}

impl<S> std::fmt::Debug for Ledger<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("books", &self.known.read().len()).finish_non_exhaustive()
    }
}

impl<S: Store> Ledger<S> {
    /// A ledger that knows nothing yet. `now_ms` is the clock, in Unix milliseconds.
    ///
    /// `batch` is the least time between two writes of a book that only carry reports.
    pub(crate) fn new(store: S, now_ms: fn() -> i64, batch: Duration) -> Self {
        Self {
            store,
            now_ms,
            batch,
            slots: parking_lot::Mutex::default(),
            known: RwLock::default(),
            retired: RwLock::default(),
            exhausted: RwLock::default(),
            reported: AtomicBool::new(false),
        }
    }

    /// Reads every book: what a new leader does first, and now and then, since an old leader may have written late.
    pub(crate) async fn load(&self) -> Result<(), LedgerError> {
        let started = Instant::now();
        for (key, stored) in self.store.list().await? {
            let slot = self.slot(&key);
            let mut slot = slot.lock().await;
            if slot.written.is_some_and(|written| written >= started) {
                continue;
            }
            slot.owner = Some(stored.owner.clone());
            self.remember(&key, &mut slot, stored);
        }
        Ok(())
    }

    pub(super) fn span(&self, key: &Key) -> Option<Span> {
        self.known.read().get(key).map(|stored| stored.book.span)
    }

    pub(super) fn slot(&self, key: &Key) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            Arc::new(Mutex::new(Slot { owner: None, stored: None, waiting: Vec::new(), written: None, seen: None }))
        });
        Arc::clone(slot)
    }

    /// The slot of a book that exists, here or in the store.
    pub(super) async fn existing(&self, key: &Key) -> Result<Option<Arc<Mutex<Slot>>>, LedgerError> {
        let known = self.slots.lock().get(key).cloned();
        if let Some(slot) = known {
            return Ok(Some(slot));
        }
        let Some(stored) = self.store.read(key).await? else { return Ok(None) };
        let slot = self.slot(key);
        let mut guard = slot.lock().await;
        if guard.stored.is_none() {
            guard.owner = Some(stored.owner.clone());
            self.remember(key, &mut guard, stored);
        }
        drop(guard);
        Ok(Some(slot))
    }

    pub(super) fn remember(&self, key: &Key, slot: &mut Slot, stored: Stored) {
        self.known.write().insert(key.clone(), Arc::new(stored.clone()));
        slot.stored = Some(stored);
        slot.seen = Some(Instant::now());
    }
}
