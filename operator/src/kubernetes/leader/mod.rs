//! Leader election: one replica holds a Lease, renews it every few seconds, and takes it over by compare-and-swap on
//! `resourceVersion`.
//!
//! A leader stops before its Lease expires: if it could not renew in time it steps down by itself, so that two replicas
//! never act at the same time. A write that is late nevertheless fails its own compare-and-swap.

mod elector;
mod lease_action;

pub use elector::Elector;

use tokio::sync::watch;

/// Whether this replica leads, kept current.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Returns both ends. The replica starts as a follower.
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether this replica leads now.
    pub fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns a receiver to wait for changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}
