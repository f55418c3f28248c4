//! Read access to the books in memory, for status and metrics. Nothing here calls the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::model::Budget;

use super::book::{Amount, Row};
use super::period::Span;
use super::record::Owner;
use super::service::Ledger;
use super::store::{BookKey, Store, StoredBook};

impl<S: Store> Ledger<S> {
    /// Returns all books in memory, as they were last read or written.
    pub fn books(&self) -> Vec<(BookKey, Arc<StoredBook>)> {
        self.slots.read().iter().filter_map(|(key, slot)| Some((key.clone(), slot.stored()?))).collect()
    }

    /// Returns the book of a budget for the period that starts at `start` (Unix seconds), if it is in memory.
    pub fn book(&self, budget_uid: &str, start: i64) -> Option<Arc<StoredBook>> {
        self.stored(&BookKey { budget_uid: budget_uid.to_owned(), start })
    }

    pub(super) fn stored(&self, key: &BookKey) -> Option<Arc<StoredBook>> {
        self.slots.read().get(key)?.stored()
    }

    /// Returns how long the oldest report of spending has waited to be written; zero if none waits.
    pub fn oldest_report(&self) -> Duration {
        self.slots.read().values().filter_map(|slot| slot.oldest_report()).max().unwrap_or_default()
    }

    /// Returns what earlier budgets with the same name have used of a period. Zero before the first lease is requested.
    pub fn used_before(&self, budget_uid: &str, start: i64) -> Amount {
        let slots = self.slots.read();
        let slot = slots.get(&BookKey { budget_uid: budget_uid.to_owned(), start });
        let predecessors = slot.and_then(|slot| slot.predecessors.get()).into_iter().flatten();
        predecessors.filter_map(|key| Some(slots.get(key)?.stored()?.book.charged())).sum()
    }

    /// Finds the books of this period of earlier budgets with the same name. A budget that is deleted and created again has
    /// another UID, and grants no more leases under the old one.
    pub(super) fn predecessors(&self, owner: &Owner, span: Span) -> Vec<BookKey> {
        let same = |stored: &StoredBook| {
            let Owner { tenant: _, tenant_uid, budget, budget_uid } = &stored.owner;
            *tenant_uid == owner.tenant_uid
                && *budget == owner.budget
                && *budget_uid != owner.budget_uid
                && !stored.owner.is_spend_limit()
                && stored.book.span == span
        };
        self.books().into_iter().filter(|(_, stored)| same(stored)).map(|(key, _)| key).collect()
    }

    /// Returns whether a lease was refused because the budget is exhausted, and since then none was granted and its limit
    /// is the same.
    pub fn is_exhausted(&self, budget: &Budget, span: Span) -> bool {
        let key = BookKey { budget_uid: budget.uid.clone(), start: span.start };
        let limit = self.limit(budget, span);
        self.slots.read().get(&key).is_some_and(|slot| slot.is_exhausted(limit))
    }

    /// Returns the settled money of all periods, by UID of the tenant and names of the row. It never decreases, whichever
    /// replica leads. Only the books of spend limits count, because they itemise every call once.
    pub fn settled_by_row(&self) -> HashMap<(String, Row), u64> {
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
