//! What nobody will report on: leases of pods that are gone or late, and books whose time has passed.

use std::time::Duration;

use super::period::Span;
use super::service::Ledger;
use super::store::{Key, Store, Stored};

/// How long after its deadline a lease waits for its last report.
pub(crate) const GRACE: Duration = Duration::from_mins(1);

impl<S: Store> Ledger<S> {
    /// Gives up what a pod holds: all of it, or what is of another epoch than `running`.
    pub(crate) async fn gone(&self, pod_uid: &str, running: Option<&str>) {
        let now = (self.now_ms)().div_euclid(1000);
        let holds = |stored: &Stored| {
            let mut leases = stored.book.leases.iter();
            leases.any(|lease| lease.holder.pod_uid == pod_uid && Some(lease.holder.epoch.as_str()) != running)
        };
        let keys: Vec<Key> =
            self.known.read().iter().filter(|(_, stored)| holds(stored)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.quietly(&key, |book| {
                book.forfeit(now, |lease| {
                    lease.holder.pod_uid == pod_uid && Some(lease.holder.epoch.as_str()) != running
                })
            })
            .await;
        }
    }

    /// Gives up leases that are overdue, and removes books whose time has passed.
    pub(crate) async fn expire(&self) {
        let now = (self.now_ms)();
        let grace = i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX);
        for (key, stored) in self.books() {
            if stored.book.leases.iter().any(|lease| lease.deadline.saturating_add(grace) <= now) {
                self.quietly(&key, |book| book.expire(now, grace)).await;
            } else if stored.book.leases.is_empty()
                && kept_until(stored.book.span) <= now.div_euclid(1000)
                && self.store.remove(&key, &stored.version).await.is_ok()
            {
                self.retire(&stored);
                self.known.write().remove(&key);
                self.exhausted.write().remove(&key);
                self.slots.lock().remove(&key);
            }
        }
    }
}

/// Until when a book is kept, Unix seconds: 35 periods after its end, but two days at least and 400 at most.
fn kept_until(span: Span) -> i64 {
    const DAY: i64 = 24 * 3600;
    let periods = span.end.saturating_sub(span.start).saturating_mul(35);
    span.end.saturating_add(periods.clamp(2 * DAY, 400 * DAY))
}
