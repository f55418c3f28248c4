//! Idle connections to one shim, newest first.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connection::Connection;
use crate::gateway::workers::{MOST, lane};

/// Shims keep idle connections longer than this, so a call is not written into one that is about to close.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections of a thread that are kept. What is in flight is bounded by the governor, not here.
const KEPT: usize = 256;

/// Idle connections, by the thread whose runtime their sockets belong to.
#[derive(Debug, Default)]
pub(super) struct Pool {
    lanes: [Mutex<Vec<(Connection, Instant)>>; MOST + 1],
}

impl Pool {
    fn here(&self) -> &Mutex<Vec<(Connection, Instant)>> {
        let [.., rest] = &self.lanes;
        self.lanes.get(lane()).unwrap_or(rest)
    }

    /// The connection of this thread that was used last, if any is left that is not too old.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.here().lock();
        let (connection, since) = idle.pop()?;
        if now.saturating_duration_since(since) < IDLE {
            return Some(connection);
        }
        // The newest is too old, so all are.
        let old = std::mem::take(&mut *idle);
        drop(idle);
        drop(old);
        None
    }

    /// Keeps a connection for this thread's next call.
    pub(super) fn put(&self, connection: Connection, now: Instant) {
        let mut idle = self.here().lock();
        if idle.len() < KEPT {
            idle.push((connection, now));
        }
    }

    /// Closes what has been idle for long.
    pub(super) fn prune(&self, now: Instant) {
        for lane in &self.lanes {
            let mut idle = lane.lock();
            let fresh = idle.partition_point(|(_, since)| now.saturating_duration_since(*since) >= IDLE);
            let old: Vec<_> = idle.drain(..fresh).collect();
            drop(idle);
            drop(old);
        }
    }
}
