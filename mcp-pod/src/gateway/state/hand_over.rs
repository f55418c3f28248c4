//! The moment at which a call is handed to its tool server, and the policy that must still allow it then.
//!
//! A call can wait between its decision and this moment: for its body, a lease, an audit slot or a connection. A policy
//! that comes meanwhile decides again. Checking right before the first byte is written is not enough by itself: the
//! thread could be suspended between the check and the write, and the new policy be acknowledged in between. So the
//! thread holds a lock of its own from the check to the end of the first write, and [`HandOver::wait`] takes each of
//! these locks once after a policy came into force. No other thread takes them, so a call never waits for one unless a
//! policy is being installed.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::homes::HomeVersion;
use crate::gateway::workers::{MAX_WORKERS, worker_index};

/// What a call was allowed by, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// Generation of the policy that allowed the call.
    pub(crate) generation: u64,
    /// Maximum age of the last proof of freshness, for the class of the tool.
    pub(crate) stale_after: Duration,
    /// Expiry of the caller's token.
    pub(crate) expires_at: Instant,
    /// By what the principal's home was this gateway.
    pub(crate) home: HomeVersion,
}

/// One lock per worker thread, on a cache line of its own. All threads that are not workers share the last one.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    by_worker: [Lock; MAX_WORKERS + 1],
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Lock(Mutex<()>);

/// While it exists, no policy that came into force after the check is acknowledged.
pub(crate) type Held<'a> = MutexGuard<'a, ()>;

impl HandOver {
    /// Starts to hand over a call, if `allowed` still returns true.
    pub(super) fn begin(&self, allowed: impl FnOnce() -> bool) -> Option<Held<'_>> {
        let [.., last] = &self.by_worker;
        let held = self.by_worker.get(worker_index()).unwrap_or(last).0.lock();
        allowed().then_some(held)
    }

    /// Waits until every call whose check may have seen the previous policy is handed over.
    pub(super) fn wait(&self) {
        for lock in &self.by_worker {
            drop(lock.0.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_new_policy_waits_for_the_calls_that_the_previous_one_allowed() {
        let hand_over = HandOver::default();
        std::thread::scope(|scope| {
            let held = hand_over.begin(|| true).unwrap();
            let (sender, acknowledged) = mpsc::channel();
            let waiting = &hand_over;
            scope.spawn(move || {
                waiting.wait();
                sender.send(()).unwrap();
            });
            acknowledged.recv_timeout(Duration::from_millis(100)).unwrap_err();
            drop(held);
            acknowledged.recv_timeout(Duration::from_secs(60)).unwrap();
        });
        assert!(hand_over.begin(|| false).is_none());
        hand_over.wait();
    }
}
