//! How recently the leader proved that the policy is current.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time of the last proof, shared without a lock.
#[derive(Debug)]
pub(crate) struct Freshness {
    origin: Instant,
    /// Milliseconds from `origin` to the proof, plus one; 0 before the first proof.
    proved: AtomicU64,
}

impl Freshness {
    pub(crate) fn new() -> Self {
        // In the past, so that a proof older than the process can be represented.
        let now = Instant::now();
        Self { origin: now.checked_sub(Duration::from_secs(3600)).unwrap_or(now), proved: AtomicU64::new(0) }
    }

    /// Records a proof that was made `age` before `now`.
    pub(crate) fn prove(&self, now: Instant, age: Duration) {
        let proved = now.checked_sub(age).unwrap_or(self.origin).saturating_duration_since(self.origin);
        let millis = u64::try_from(proved.as_millis()).unwrap_or(u64::MAX - 1);
        // An older proof that arrives late does not replace a newer one.
        self.proved.fetch_max(millis.saturating_add(1), Ordering::AcqRel);
    }

    /// Returns the age of the last proof, or `None` if there was none.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        let millis = self.proved.load(Ordering::Acquire).checked_sub(1)?;
        Some(now.saturating_duration_since(self.origin + Duration::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_proof_ages_and_is_not_replaced_by_an_older_one() {
        let (freshness, now) = (Freshness::new(), Instant::now());
        assert_eq!(freshness.age(now), None);
        freshness.prove(now, Duration::from_secs(2));
        let age = |now| freshness.age(now).unwrap().as_secs_f64();
        assert!((age(now) - 2.0).abs() < 0.01);
        assert!((age(now + Duration::from_secs(60)) - 62.0).abs() < 0.01);
        freshness.prove(now, Duration::from_secs(100));
        assert!((age(now) - 2.0).abs() < 0.01);
        freshness.prove(now + Duration::from_secs(5), Duration::ZERO);
        assert!(age(now + Duration::from_secs(5)) < 0.01);
    }
}
