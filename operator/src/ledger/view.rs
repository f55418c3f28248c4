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
        self.stored(&BookKey { budget_uid: budget_uid.to_owned(), start })
    }

    pub(super) fn stored(&self, key: &BookKey) -> Option<Arc<StoredBook>> {
        self.slots.read().get(key)?.stored()
    }

    /// Returns whether a lease was refused because the budget is exhausted, and none was granted since.
    pub(crate) fn is_exhausted(&self, budget_uid: &str, start: i64) -> bool {
        let key = BookKey { budget_uid: budget_uid.to_owned(), start };
        self.slots.read().get(&key).is_some_and(|slot| slot.is_exhausted())
    }

    /// Returns the settled money of all periods, by UID of the tenant and names of the row. It never decreases, whichever
    /// replica leads. Only the books of spend limits count, because they itemise every call once.
    pub(crate) fn settled_by_row(&self) -> HashMap<(String, Row), u64> {
        let books: Vec<_> = self.books().into_iter().filter(|(_, stored)| stored.owner.is_spend_limit()).collect();
        // Read after the others, because rows move to them.
        let closed = |uid: &String| Some((uid.clone(), self.stored(&BookKey::closed_periods(uid))?));
        let closed: HashMap<String, Arc<StoredBook>> =
            books.iter().filter_map(|(key, _)| closed(&key.budget_uid)).collect();
        let mut sums = HashMap::new();
        let mut add = |stored: &StoredBook| {
            for row in &stored.book.rows {
                let name = Row { amount: Amount::default(), ..row.clone() };
                let sum: &mut u64 = sums.entry((stored.owner.budget_uid.clone(), name)).or_default();
                *sum = sum.saturating_add(row.amount.micros);
            }
        };
        for (key, stored) in books.iter().filter(|(key, _)| !key.is_closed_periods()) {
            let last_closed = closed.get(&key.budget_uid).and_then(|closed| closed.book.last_closed);
            // Rows that have moved already are counted there.
            if last_closed != Some(stored.book.closed_period()) {
                add(stored);
            }
        }
        for stored in closed.values() {
            add(stored);
        }
        sums
    }
}
