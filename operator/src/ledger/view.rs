//! Read access to the books in memory, for status and metrics. Nothing here calls the API server.

use std::collections::HashMap;
use std::sync::Arc;

use super::book::{Amount, Row};
use super::service::Ledger;
use super::store::{BookKey, Store, StoredBook};

impl<S: Store> Ledger<S> {
    /// Returns all books in memory, as they were last read or written.
    pub(crate) fn books(&self) -> Vec<(BookKey, Arc<StoredBook>)> {
        self.slots.read().iter().filter_map(|(key, slot)| Some((key.clone(), slot.stored()?))).collect()
    }

    /// Returns the book of a budget for the period that starts at `start` (Unix seconds), if it is in memory.
    pub(crate) fn book(&self, budget_uid: &str, start: i64) -> Option<Arc<StoredBook>> {
        self.slots.read().get(&BookKey { budget_uid: budget_uid.to_owned(), start })?.stored()
    }

    /// Returns whether a lease was refused because the budget is exhausted, and none was granted since.
    pub(crate) fn is_exhausted(&self, budget_uid: &str, start: i64) -> bool {
        let key = BookKey { budget_uid: budget_uid.to_owned(), start };
        self.slots.read().get(&key).is_some_and(|slot| slot.is_exhausted())
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
