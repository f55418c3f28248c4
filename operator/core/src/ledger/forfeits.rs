//! Forfeits leases that nobody will report on.

use super::book::REPORT_GRACE;
use super::service::Ledger;
use super::slot::{Slot, Writer};
use super::store::{BookKey, Store, StoredBook};

impl<S: Store> Ledger<S> {
    /// Forfeits the leases of a pod: all of them, or those of another epoch than `running`.
    pub async fn forfeit_pod(&self, pod_uid: &str, running: Option<&str>) {
        let now = (self.now_ms)().div_euclid(1000);
        let holds = |stored: &StoredBook| {
            let mut leases = stored.book.leases.iter();
            leases.any(|lease| lease.holder.pod_uid == pod_uid && Some(lease.holder.epoch.as_str()) != running)
        };
        let books = self.books().into_iter();
        let keys: Vec<BookKey> = books.filter(|(_, stored)| holds(stored)).map(|(key, _)| key).collect();
        for key in keys {
            self.change_in_background(&key, |book| {
                book.forfeit(now, |lease| {
                    lease.holder.pod_uid == pod_uid && Some(lease.holder.epoch.as_str()) != running
                })
            })
            .await;
        }
    }

    /// Forfeits overdue leases, and removes from memory what is not needed any more.
    pub async fn expire(&self) {
        let now = (self.now_ms)();
        let grace = i64::try_from(REPORT_GRACE.as_millis()).unwrap_or(i64::MAX);
        for (key, stored) in self.books() {
            if stored.book.leases.iter().any(|lease| lease.deadline.saturating_add(grace) <= now) {
                self.change_in_background(&key, |book| book.expire(now, grace)).await;
            }
        }
        self.remove_unneeded_slots(now.div_euclid(1000));
    }

    /// Removes closed books from memory, and budgets of ended periods that have no book, because no lease was ever
    /// granted on them.
    fn remove_unneeded_slots(&self, now: i64) {
        let unneeded = |slot: &Slot, writer: Option<&Writer>| match slot.stored() {
            Some(stored) => stored.book.is_closed(),
            None => writer.is_none_or(|writer| writer.span.is_none_or(|span| span.end <= now)),
        };
        let slots = self.slots.read();
        let keys: Vec<BookKey> =
            slots.iter().filter(|(_, slot)| unneeded(slot, None)).map(|(key, _)| key.clone()).collect();
        drop(slots);
        for key in keys {
            self.remove_slot(&key, |slot, writer| unneeded(slot, Some(writer)));
        }
    }
}
