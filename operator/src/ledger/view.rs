//! What can be seen of the ledger without asking the store: for status and metrics.

use std::collections::HashMap;
use std::sync::Arc;

use super::book::{Amount, Granted, Refusal, Row};
use super::service::Ledger;
use super::store::{Key, Store, Stored};

impl<S: Store> Ledger<S> {
    /// The books as they were read or written last.
    pub(crate) fn books(&self) -> Vec<(Key, Arc<Stored>)> {
        self.known.read().iter().map(|(key, stored)| (key.clone(), Arc::clone(stored))).collect()
    }

    /// The book of a budget in a period.
    pub(crate) fn book(&self, budget_uid: &str, start: i64) -> Option<Arc<Stored>> {
        self.known.read().get(&Key { budget_uid: budget_uid.to_owned(), start }).cloned()
    }

    /// Whether the last lease that was asked of a budget was refused because nothing was left.
    pub(crate) fn is_exhausted(&self, budget_uid: &str, start: i64) -> bool {
        self.exhausted.read().contains(&Key { budget_uid: budget_uid.to_owned(), start })
    }

    pub(super) fn note(&self, key: Key, result: &Result<Granted, Refusal>) {
        let mut exhausted = self.exhausted.write();
        match result {
            Err(Refusal::Exhausted) => exhausted.insert(key),
            Ok(_) => exhausted.remove(&key),
            Err(Refusal::Held) => false,
        };
    }

    /// What books that were removed since the start had settled: counters must not go down.
    pub(crate) fn retired(&self) -> HashMap<(String, Row), u64> {
        self.retired.read().clone()
    }

    pub(super) fn retire(&self, stored: &Stored) {
        let mut retired = self.retired.write();
        for row in &stored.book.rows {
            let name = Row { amount: Amount::default(), ..row.clone() };
            let key = (stored.owner.budget_uid.clone(), name);
            let sum = retired.entry(key).or_default();
            *sum = sum.saturating_add(row.amount.micros);
        }
    }
}
