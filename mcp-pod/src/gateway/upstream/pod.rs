//! One pod of a tool server, and the connections to its shim.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::connection::Connection;
use crate::gateway::pool::Pool;

/// One pod of a tool server, for as long as its address is in the policy.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    pool: Pool<Connection>,
    /// Epoch in the last answer of the shim: how often it had started the tool server.
    epoch: AtomicU64,
}

impl Pod {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, pool: Pool::default(), epoch: AtomicU64::new(0) }
    }

    /// Takes out an idle connection of this thread.
    pub(super) fn take(&self) -> Option<Connection> {
        self.pool.take(Instant::now())
    }

    /// Keeps a connection for this thread's next request.
    pub(super) fn keep(&self, connection: Connection) {
        self.pool.put(connection, Instant::now());
    }

    /// Closes connections that have been idle for too long.
    pub(super) fn prune(&self) {
        self.pool.prune(Instant::now());
    }

    /// Stores the epoch of an answer.
    pub(super) fn note_epoch(&self, epoch: Option<u64>) {
        // Nearly always unchanged: reading does not take the cache line from other threads.
        if let Some(epoch) = epoch
            && self.epoch() != epoch
        {
            self.epoch.store(epoch, Ordering::Relaxed);
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }
}
