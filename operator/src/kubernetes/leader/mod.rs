//! Leader election: one replica holds a Lease, renews it every few seconds, and takes it over by compare-and-swap on
//! `resourceVersion`.
//!
//! A leader stops before its Lease expires: if it could not renew in time it steps down by itself, so that two replicas
//! never act at the same time. A write that is late nevertheless fails its own compare-and-swap. A leader that cannot do
//! its work gives up the Lease through its [`Candidacy`].

mod elector;
mod lease_action;

pub use elector::Elector;
/// A term is the `resourceVersion` that the Lease had when the replica took it, so terms grow even if someone deletes the Lease.
pub use mcp_fleet_core::shared_state::Term;
use tokio::sync::watch;

/// Whether this replica leads, kept current.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Term>>);

impl Leadership {
    /// Returns both ends. The replica starts as a follower.
    pub fn channel() -> (watch::Sender<Option<Term>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Whether this replica leads now.
    pub fn is_leader(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Returns a receiver to wait for changes. Its value is the term while this replica leads.
    pub fn watch(&self) -> watch::Receiver<Option<Term>> {
        self.0.clone()
    }
}

/// Whether this replica takes part in the election. It does at first.
#[derive(Debug)]
pub struct Candidacy(watch::Sender<bool>);

impl Default for Candidacy {
    fn default() -> Self {
        Self(watch::channel(true).0)
    }
}

impl Candidacy {
    /// Leaves the election: the Lease is released, if this replica holds it.
    pub fn withdraw(&self) {
        self.0.send_replace(false);
    }

    /// Takes part in the election again.
    pub fn renew(&self) {
        self.0.send_replace(true);
    }

    /// Returns a receiver to wait for changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}
