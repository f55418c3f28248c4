//! Forfeits leases that nobody will report on, and removes books whose retention has ended.

use std::time::Duration;

use super::period::Span;
use super::service::Ledger;
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
        let keys: Vec<BookKey> =
            self.cache.read().iter().filter(|(_, stored)| holds(stored)).map(|(key, _)| key.clone()).collect();
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
                self.cache.write().remove(&key);
                self.exhausted.write().remove(&key);
                self.slots.lock().remove(&key);
            }
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
