//! Idle connections to one shim or one other gateway, newest first.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::workers::{MAX_WORKERS, worker_index};

/// Longest time that a connection stays idle. The other end keeps idle connections longer, so no call is written to a
/// connection that is about to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections per thread. The governor and the memory of principals bound the ones in use.
const MAX_IDLE: usize = 256;

/// Idle connections, by the worker thread whose runtime owns their sockets.
#[derive(Debug)]
pub(crate) struct Pool<C> {
    by_worker: [Mutex<Vec<(C, Instant)>>; MAX_WORKERS + 1],
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { by_worker: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<C> Pool<C> {
    /// Returns the connections of the calling thread. All threads that are not workers share the last set.
    fn of_this_thread(&self) -> &Mutex<Vec<(C, Instant)>> {
        let [.., last] = &self.by_worker;
        self.by_worker.get(worker_index()).unwrap_or(last)
    }

    /// Takes out the connection that this thread used last, unless all have been idle for too long.
    pub(crate) fn take(&self, now: Instant) -> Option<C> {
        let mut idle = self.of_this_thread().lock();
        let (connection, since) = idle.pop()?;
        if now.saturating_duration_since(since) < IDLE_TIMEOUT {
            return Some(connection);
        }
        // The newest has been idle for too long, so all have.
        let expired = std::mem::take(&mut *idle);
        drop(idle);
        drop(expired);
        None
    }

    /// Stores a connection for this thread's next call, or closes it if there are too many.
    pub(crate) fn put(&self, connection: C, now: Instant) {
        let mut idle = self.of_this_thread().lock();
        if idle.len() < MAX_IDLE {
            idle.push((connection, now));
        }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn prune(&self, now: Instant) {
        for connections in &self.by_worker {
            let mut idle = connections.lock();
            let first_fresh = idle.partition_point(|(_, since)| now.saturating_duration_since(*since) >= IDLE_TIMEOUT);
            let expired: Vec<_> = idle.drain(..first_fresh).collect();
            drop(idle);
            drop(expired);
        }
    }
}
