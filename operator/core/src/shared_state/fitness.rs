//! Whether a leader is fit to lead: whether it can prove that its policies are current. Pure.
//!
//! A leader that cannot prove it, but can renew the Lease, is worse than none: gateways refuse all calls, and no other
//! replica gets a chance, although its path to the API server may work.

use std::time::Duration;

use tokio::time::Instant;

/// Failed proofs in a row after which a leader gives up, if it could not prove anything for [`UNPROVED`] either.
const FAILED_PROOFS: u32 = 3;
/// How long a leader goes on without a proof when proofs fail. Tools of class Write are refused after 15 seconds by
/// default, and the next leader needs some of that time.
const UNPROVED: Duration = Duration::from_secs(10);
/// How long a leader goes on without a proof when few or none failed: proofs are slow, or it is still reading the ledger,
/// or it hangs.
const UNSTARTED: Duration = Duration::from_mins(1);

/// Record of the proofs of one term.
#[derive(Clone, Copy, Debug)]
pub struct Fitness {
    /// The last proof, or the start of the term.
    since: Instant,
    /// Failed proofs since then.
    failed: u32,
}

impl Fitness {
    /// Starts a term.
    pub fn new(now: Instant) -> Self {
        Self { since: now, failed: 0 }
    }

    /// Records a proof that succeeded.
    pub fn proved(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Records a proof that failed.
    pub fn failed(&mut self) {
        self.failed = self.failed.saturating_add(1);
    }

    /// Returns whether the leader has to give up the Lease.
    pub fn is_lost(&self, now: Instant) -> bool {
        let unproved = now.saturating_duration_since(self.since);
        (self.failed >= FAILED_PROOFS && unproved >= UNPROVED) || unproved >= UNSTARTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, failed: u32) -> bool {
        let start = Instant::now();
        let mut fitness = Fitness::new(start);
        (0..failed).for_each(|_| fitness.failed());
        fitness.is_lost(start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_leader_gives_up_after_several_failures_over_some_time() {
        assert!(!after(9, 20), "the API server may only have restarted");
        assert!(!after(20, 2), "proofs are slow");
        assert!(after(10, 3));
    }

    #[test]
    fn a_leader_gives_up_when_no_proof_even_ends() {
        assert!(!after(59, 0));
        assert!(after(60, 0));
    }

    #[test]
    fn a_proof_starts_the_count_again() {
        let start = Instant::now();
        let mut fitness = Fitness::new(start);
        (0..5).for_each(|_| fitness.failed());
        fitness.proved(start + Duration::from_secs(9));
        assert!(!fitness.is_lost(start + Duration::from_secs(30)));
        (0..3).for_each(|_| fitness.failed());
        assert!(fitness.is_lost(start + Duration::from_secs(19)));
    }
}
