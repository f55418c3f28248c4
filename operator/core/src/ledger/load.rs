//! Reads the books into memory: all of them when this replica begins to lead, later those that another writer changed.

use std::collections::HashSet;

use futures::{TryStreamExt, stream};
use tokio::time::Instant;

use super::error::LedgerError;
use super::service::Ledger;
use super::store::{BookKey, Listed, Page, Selection, Store, StoreError};

/// Maximum number of books that are read concurrently. Bounds what is in flight, as a book can have some 100 KiB.
const MAX_CONCURRENT_READS: usize = 16;

impl<S: Store> Ledger<S> {
    /// Reads the open books whose version in the store is not the one in memory. A new leader reads all of them so, before it
    /// grants anything. It repeats this, because an old leader may have written late.
    pub async fn load(&self) -> Result<(), LedgerError> {
        let started = Instant::now();
        let mut found = HashSet::new();
        let mut page = None;
        loop {
            let Page { books, next } = self.store.list(Selection::Open, page).await?;
            found.extend(books.iter().map(|listed| listed.key.clone()));
            let outdated = books.into_iter().filter(|listed| !self.is_current(listed)).map(Ok);
            stream::iter(outdated)
                .try_for_each_concurrent(MAX_CONCURRENT_READS, |listed| self.reload(listed, started))
                .await?;
            page = next;
            if page.is_none() {
                break;
            }
        }
        self.check_missing(&found, started).await
    }

    /// Returns whether this version of a book is in memory.
    fn is_current(&self, listed: &Listed) -> bool {
        let stored = self.slots.read().get(&listed.key).and_then(|slot| slot.stored());
        stored.is_some_and(|stored| stored.version == listed.version)
    }

    /// Reads a book, unless this replica has read or written it since `started`.
    async fn reload(&self, listed: Listed, started: Instant) -> Result<(), LedgerError> {
        let slot = self.slot(&listed.key);
        let mut writer = slot.lock().await;
        if writer.synced_at.is_some_and(|synced_at| synced_at >= started) {
            return Ok(());
        }
        match self.store.read(&listed.key).await {
            Ok(stored) => slot.set(&mut writer, stored),
            // One invalid record must not block the ledger of all tenants; only its own budget grants no leases.
            Err(StoreError::Unreadable(error)) => {
                tracing::error!(budget = listed.key.budget_uid, error = &*error, "skipped an invalid ledger");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Removes from memory the books that another leader has closed, and restores those that someone deleted.
    async fn check_missing(&self, found: &HashSet<BookKey>, started: Instant) -> Result<(), LedgerError> {
        let held: Vec<BookKey> = self.slots.read().keys().filter(|key| !found.contains(*key)).cloned().collect();
        for key in held {
            let slot = self.slot(&key);
            let mut writer = slot.lock().await;
            if slot.stored().is_some() && writer.synced_at.is_none_or(|synced_at| synced_at < started) {
                self.reread(&key, &slot, &mut writer).await?;
            }
            drop(writer);
            drop(slot);
            self.remove_slot(&key, |slot, _| slot.stored().is_some_and(|stored| stored.book.is_closed()));
        }
        Ok(())
    }
}
