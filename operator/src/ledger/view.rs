//! Read access to the cached books, for status and metrics. Nothing here calls the API server.

use std::collections::HashMap;
use std::sync::Arc;

use super::book::{Amount, GrantedLease, Refusal, Row};
use super::service::Ledger;
use super::store::{BookKey, Store, StoredBook};

impl<S: Store> Ledger<S> {
    /// Returns all cached books, as they were last read or written.
    pub(crate) fn books(&self) -> Vec<(BookKey, Arc<StoredBook>)> {
        self.cache.read().iter().map(|(key, stored)| (key.clone(), Arc::clone(stored))).collect()
    }

    /// Returns the cached book of a budget for the period that starts at `start` (Unix seconds).
    pub(crate) fn book(&self, budget_uid: &str, start: i64) -> Option<Arc<StoredBook>> {
        self.cache.read().get(&BookKey { budget_uid: budget_uid.to_owned(), start }).cloned()
    }

    /// Returns whether a lease was refused because the budget is exhausted, and none was granted since.
    pub(crate) fn is_exhausted(&self, budget_uid: &str, start: i64) -> bool {
        self.exhausted.read().contains(&BookKey { budget_uid: budget_uid.to_owned(), start })
    }

    /// Records whether a lease was granted or the budget is exhausted.
    pub(super) fn record_exhaustion(&self, key: BookKey, result: &Result<GrantedLease, Refusal>) {
        let mut exhausted = self.exhausted.write();
        match result {
            Err(Refusal::Exhausted) => exhausted.insert(key),
            Ok(_) => exhausted.remove(&key),
            Err(Refusal::Held) => false,
        };
    }

    /// Returns the settled money of books that were removed since this replica started. Counters that include it never
    /// go down.
    pub(crate) fn retired(&self) -> HashMap<(String, Row), u64> {
        self.retired.read().clone()
    }

    /// Adds the settled money of a removed book to [`Self::retired`].
    pub(super) fn retire(&self, stored: &StoredBook) {
        let mut retired = self.retired.write();
        for row in &stored.book.rows {
            let name = Row { amount: Amount::default(), ..row.clone() };
            let key = (stored.owner.budget_uid.clone(), name);
            let sum = retired.entry(key).or_default();
            *sum = sum.saturating_add(row.amount.micros);
        }
    }
}
