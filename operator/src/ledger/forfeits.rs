//! Forfeits leases that nobody will report on, and removes books whose retention has ended.

use std::sync::Arc;
use std::time::Duration;

use super::period::Span;
use super::service::Ledger;
use super::slot::Slot;
use super::store::{BookKey, Store, StoredBook};

/// How long after its deadline a lease may still be reported on before it is forfeited.
pub(crate) const REPORT_GRACE: Duration = Duration::from_mins(1);

impl<S: Store> Ledger<S> {
    /// Forfeits the leases of a pod: all of them, or those of another epoch than `running`.
    pub(crate) async fn forfeit_pod(&self, pod_uid: &str, running: Option<&str>) {
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

    /// Forfeits overdue leases, and removes books whose retention has ended.
    pub(crate) async fn expire(&self) {
        let now = (self.now_ms)();
        let grace = i64::try_from(REPORT_GRACE.as_millis()).unwrap_or(i64::MAX);
        for (key, stored) in self.books() {
            if stored.book.leases.iter().any(|lease| lease.deadline.saturating_add(grace) <= now) {
                self.change_in_background(&key, |book| book.expire(now, grace)).await;
            } else if stored.book.leases.is_empty()
                && retained_until(stored.book.span) <= now.div_euclid(1000)
                && self.store.remove(&key, &stored.version).await.is_ok()
            {
                self.retire(&stored);
                self.remove_slot(&key, |_, _| true);
            }
        }
        self.remove_empty_slots(now.div_euclid(1000));
    }

    /// Removes from memory the budgets of ended periods that have no book, because no lease was ever granted on them.
    fn remove_empty_slots(&self, now: i64) {
        let empty = |(key, slot): (&BookKey, &Arc<Slot>)| slot.stored().is_none().then(|| key.clone());
        let keys: Vec<BookKey> = self.slots.read().iter().filter_map(empty).collect();
        for key in keys {
            self.remove_slot(&key, |slot, writer| {
                slot.stored().is_none() && writer.span.is_none_or(|span| span.end <= now)
            });
        }
    }
}

/// Returns until when a book is retained, in Unix seconds: 35 periods after its end, but at least 2 and at most 400
/// days.
fn retained_until(span: Span) -> i64 {
    const DAY: i64 = 24 * 3600;
    let periods = span.end.saturating_sub(span.start).saturating_mul(35);
    span.end.saturating_add(periods.clamp(2 * DAY, 400 * DAY))
}
