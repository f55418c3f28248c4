//! When the policy was last proved to be current.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The last proof, shared without a lock.
#[derive(Debug)]
pub(crate) struct Freshness {
    origin: Instant,
    /// Milliseconds from `origin` to the proof, plus one; 0: never.
    proved: AtomicU64,
}

impl Freshness {
    pub(crate) fn new() -> Self {
        // Far enough in the past that a proof older than the process can still be written down.
        let now = Instant::now();
        Self { origin: now.checked_sub(Duration::from_secs(3600)).unwrap_or(now), proved: AtomicU64::new(0) }
    }

    /// Takes a proof that was made `age` before `now`.
    pub(crate) fn prove(&self, now: Instant, age: Duration) {
        let proved = now.checked_sub(age).unwrap_or(self.origin).saturating_duration_since(self.origin);
        let millis = u64::try_from(proved.as_millis()).unwrap_or(u64::MAX - 1);
        // Never backwards: an older proof that arrives late takes nothing away from a newer one.
        self.proved.fetch_max(millis.saturating_add(1), Ordering::AcqRel);
    }

    /// How old the last proof is; absent if there was none.
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
    fn a_proof_ages_and_an_older_one_takes_nothing_away() {
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
