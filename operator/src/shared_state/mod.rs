//! What the compiler and the control stream know about tenants and objects, for the controllers that write status;
//! and the way in which controllers ask for a new compilation.

mod figures;
mod policies;
mod streams;
pub(crate) mod verdict;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::broadcast;

pub(crate) use figures::{Figure, Figures};
pub(crate) use policies::{Leading, Outlook, Policies, Proof, Published};
pub(crate) use streams::Outbound;
pub(crate) use streams::Streams;

use crate::shared_state::verdict::{Kind, TenantState, Verdict};

/// The board on which compiler, stream and controllers leave word for each other.
#[derive(Debug)]
pub(crate) struct SharedState {
    verdicts: RwLock<HashMap<(Kind, String), Verdict>>,
    tenants: RwLock<HashMap<String, TenantState>>,
    changes: broadcast::Sender<StateChange>,
    compilation_requests: broadcast::Sender<String>,
    /// The published policies, for the streams to push; and the ledger, while this replica leads.
    pub policies: Policies,
    /// The gateways that are connected to this replica.
    pub streams: Streams,
    settling: AtomicBool,
    /// Where the budgets stand.
    pub figures: Figures,
}

/// What changed on the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateChange {
    /// The state of the tenant with this UID.
    Tenant(String),
    /// The verdict on the object of this kind and UID, or something else about it.
    Verdict(Kind, String),
}

impl Default for SharedState {
    fn default() -> Self {
        Self {
            verdicts: RwLock::default(),
            tenants: RwLock::default(),
            changes: broadcast::channel(1024).0,
            compilation_requests: broadcast::channel(1024).0,
            policies: Policies::default(),
            streams: Streams::default(),
            settling: AtomicBool::new(false),
            figures: Figures::default(),
        }
    }
}

impl SharedState {
    /// The compiler's verdict on an object; none until it was compiled once.
    pub(crate) fn verdict(&self, kind: Kind, uid: &str) -> Option<Verdict> {
        self.verdicts.read().get(&(kind, uid.to_owned())).cloned()
    }

    /// Sets a verdict, and tells listeners when it is another than before.
    pub(crate) fn set_verdict(&self, kind: Kind, uid: &str, verdict: Verdict) {
        {
            let mut verdicts = self.verdicts.write();
            let place = (kind, uid.to_owned());
            if verdicts.get(&place) == Some(&verdict) {
                return;
            }
            verdicts.insert(place, verdict);
        }
        // Nobody listens on a follower.
        let _ = self.changes.send(StateChange::Verdict(kind, uid.to_owned()));
    }

    /// Asks for another look at an object: something beside its verdict is new.
    pub(crate) fn notify(&self, kind: Kind, uid: &str) {
        let _ = self.changes.send(StateChange::Verdict(kind, uid.to_owned()));
    }

    /// Forgets the verdict on an object that is gone.
    pub(crate) fn forget(&self, kind: Kind, uid: &str) {
        self.verdicts.write().remove(&(kind, uid.to_owned()));
    }

    /// How far the policy of a tenant is enforced.
    pub(crate) fn tenant_state(&self, uid: &str) -> TenantState {
        self.tenants.read().get(uid).cloned().unwrap_or_default()
    }

    /// Changes a part of that state, and tells listeners when it is another than before.
    pub(crate) fn update_tenant_state(&self, uid: &str, update: impl FnOnce(&mut TenantState)) {
        {
            let mut tenants = self.tenants.write();
            let state = tenants.entry(uid.to_owned()).or_default();
            let before = state.clone();
            update(state);
            if *state == before {
                return;
            }
        }
        let _ = self.changes.send(StateChange::Tenant(uid.to_owned()));
    }

    /// Forgets a tenant that is gone.
    pub(crate) fn forget_tenant(&self, uid: &str) {
        self.tenants.write().remove(uid);
    }

    /// For a while after this replica began to lead, what is not known here may only not have been heard yet.
    pub(crate) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Acquire)
    }

    /// Begins that while, or ends it; at its end listeners look at everything that is known.
    pub(crate) fn set_settling(&self, settling: bool) {
        self.settling.store(settling, Ordering::Release);
        if !settling {
            let known: Vec<String> = self.tenants.read().keys().cloned().collect();
            for uid in known {
                let _ = self.changes.send(StateChange::Tenant(uid));
            }
        }
    }

    /// Forgets everything: another replica may lead now, and what is known here grows old.
    pub(crate) fn clear(&self) {
        self.verdicts.write().clear();
        self.figures.clear();
        self.tenants.write().clear();
    }

    /// Changes from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<StateChange> {
        self.changes.subscribe()
    }

    /// Asks for a compilation of the tenant with this UID: its keys, namespaces or revocations changed.
    pub(crate) fn request_compilation(&self, tenant_uid: &str) {
        let _ = self.compilation_requests.send(tenant_uid.to_owned());
    }

    /// The UIDs of tenants to compile anew.
    pub(crate) fn compilation_requests(&self) -> broadcast::Receiver<String> {
        self.compilation_requests.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_stays_the_same_is_not_announced_again() {
        let shared = SharedState::default();
        let mut changes = shared.changes();
        shared.update_tenant_state("u-1", |state| state.generation = 3);
        shared.update_tenant_state("u-1", |state| state.generation = 3);
        assert_eq!(changes.try_recv().unwrap(), StateChange::Tenant("u-1".into()));
        assert!(changes.try_recv().is_err());
    }
}
