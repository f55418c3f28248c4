//! Which replica leads: one Lease, renewed every couple of seconds, taken by compare-and-swap on `resourceVersion`.
//!
//! Leading ends before the Lease does: a leader that could not renew in time stops its controllers by itself, so that
//! two replicas never both act on what they believe, and what one writes late fails its compare-and-swap.
//!
//! A leader that cannot do its work gives up the Lease through its [`Candidacy`].

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

/// Whether this replica runs for the Lease. It does at first.
#[derive(Debug)]
pub struct Candidacy(watch::Sender<bool>);

impl Default for Candidacy {
    fn default() -> Self {
        Self(watch::channel(true).0)
    }
}

impl Candidacy {
    /// Gives up the Lease, if this replica holds it, and runs for it no more.
    pub fn withdraw(&self) {
        self.0.send_replace(false);
    }

    /// Runs for the Lease again.
    pub fn renew(&self) {
        self.0.send_replace(true);
    }

    /// The receiver, to wait for changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}
