//! Limits the processes and threads of the sandbox.
//!
//! The kernel reports every new process or thread, but not the end of one. So new ones are added to an upper bound, and
//! only when that reaches the limit, the processes are counted. `RLIMIT_NPROC` cannot be used: it counts the processes of
//! all pods on the node that run with the same uid. A limit of the cgroup cannot be set from inside the container.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The calls that create processes and threads. The filter denies `clone3`, for which libc falls back to `clone`.
#[cfg(target_arch = "x86_64")]
pub(in crate::shim::sandbox) const CALLS: &[libc::c_long] = &[libc::SYS_clone, libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::shim::sandbox) const CALLS: &[libc::c_long] = &[libc::SYS_clone];

/// How long a call that was allowed may take until its process can be counted. A call that takes longer on a busy node
/// is missed by a count, and there can be more processes than the limit; never twice as many, because each process has
/// only one such call at a time.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a count that reached the limit is valid. It bounds the work that a server at its limit can cause.
const FULL: Duration = Duration::from_millis(10);

/// What to do with a call that creates a process or a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    Refuse,
    /// Decide again after this time.
    Wait(Duration),
}

/// Decides which calls may create a process or a thread.
#[derive(Debug)]
pub(super) struct ForkLimit {
    limit: usize,
    /// At least the number of processes and threads.
    at_most: usize,
    /// When calls were allowed that a count may not include yet.
    recent: VecDeque<Instant>,
    full_until: Option<Instant>,
}

impl ForkLimit {
    /// Creates the limit for a sandbox that has one process with one thread.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, at_most: 1, recent: VecDeque::new(), full_until: None }
    }

    /// Decides about one call. `count` counts the processes and threads; `None` if that failed.
    pub(super) fn decide(&mut self, now: Instant, count: impl FnOnce() -> Option<usize>) -> Decision {
        while self.recent.front().is_some_and(|allowed| now.duration_since(*allowed) >= SETTLE) {
            self.recent.pop_front();
        }
        if self.at_most >= self.limit {
            if self.full_until.is_some_and(|until| now < until) {
                return Decision::Refuse;
            }
            let counted = count().unwrap_or(usize::MAX);
            if counted >= self.limit {
                self.full_until = Some(now + FULL);
                return Decision::Refuse;
            }
            self.at_most = counted + self.recent.len();
            if self.at_most >= self.limit {
                return Decision::Wait(self.until_settled(self.at_most - self.limit, now));
            }
        }
        self.at_most += 1;
        self.recent.push_back(now);
        Decision::Allow
    }

    /// Returns the time until one more than the `index` oldest of the recent calls can be counted.
    fn until_settled(&self, index: usize, now: Instant) -> Duration {
        self.recent.get(index).map_or(SETTLE, |allowed| SETTLE.saturating_sub(now.duration_since(*allowed)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn not_counted() -> Option<usize> {
        panic!("it was counted below the limit")
    }

    #[test]
    fn processes_are_only_counted_at_the_limit() {
        let now = Instant::now();
        let mut limit = ForkLimit::new(4);
        for _ in 0..3 {
            assert_eq!(limit.decide(now, not_counted), Decision::Allow);
        }
        assert_eq!(limit.decide(now, || Some(4)), Decision::Refuse);
        assert_eq!(limit.decide(now + FULL / 2, not_counted), Decision::Refuse, "the count is still valid");
        assert_eq!(limit.decide(now + SETTLE, || Some(2)), Decision::Allow);
        assert_eq!(limit.decide(now + SETTLE, not_counted), Decision::Allow);
        assert_eq!(limit.decide(now + SETTLE, || Some(4)), Decision::Refuse);
    }

    #[test]
    fn calls_that_a_count_may_miss_are_waited_for() {
        let start = Instant::now();
        let mut limit = ForkLimit::new(4);
        for step in 0..3 {
            assert_eq!(limit.decide(start + step * SETTLE / 10, not_counted), Decision::Allow);
        }
        let now = start + SETTLE / 2;
        assert_eq!(limit.decide(now, || Some(1)), Decision::Wait(SETTLE / 2), "three calls may not be counted yet");
        assert_eq!(limit.decide(start + SETTLE, || Some(1)), Decision::Allow);
    }

    #[test]
    fn nothing_is_allowed_if_processes_cannot_be_counted() {
        let now = Instant::now();
        let mut limit = ForkLimit::new(1);
        assert_eq!(limit.decide(now, || None), Decision::Refuse);
        assert_eq!(limit.decide(now + SETTLE, || None), Decision::Refuse);
        assert_eq!(limit.decide(now + SETTLE * 2, || Some(0)), Decision::Allow);
    }
}
