//! Which replica leads: one Lease, renewed every couple of seconds, taken by compare-and-swap on `resourceVersion`.
//!
//! Leading ends before the Lease does: a leader that could not renew in time stops its controllers by itself, so that
//! two replicas never both act on what they believe, and what one writes late fails its compare-and-swap.

mod elector;
mod lease_action;

pub use elector::Elector;

use tokio::sync::watch;

/// Whether this replica leads.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// A pair of both ends; it starts as a follower.
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether this replica leads now.
    pub fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    /// The receiver, to wait for changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}
