//! State that the parts of the operator share: the policy compiler and the control server write it, the controllers
//! read it for status. Controllers also request compilations here. Start at [`SharedState`].

mod budgets;
mod fitness;
mod policies;
mod streams;
pub(crate) mod verdict;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;
use tokio::time::Instant;

pub(crate) use budgets::{BudgetState, BudgetStates};
pub(crate) use fitness::Fitness;
pub(crate) use policies::{LeaderState, Policies, PolicyState, Proof, Published};
pub(crate) use streams::{Outbound, Streams};

use crate::progress::Progress;
use crate::shared_state::verdict::{Kind, TenantState, Verdict};

/// State that the policy compiler, the control server and the controllers share.
#[derive(Debug)]
pub(crate) struct SharedState {
    verdicts: RwLock<HashMap<(Kind, String), Verdict>>,
    tenants: RwLock<HashMap<String, TenantState>>,
    changes: broadcast::Sender<StateChange>,
    compilation_requests: broadcast::Sender<String>,
    /// Published policies, for the control streams to push, and the ledger while this replica leads.
    pub policies: Policies,
    /// Control streams of the gateways that are connected to this replica.
    pub streams: Streams,
    warming_up: AtomicBool,
    /// Spend of the budgets.
    pub budgets: BudgetStates,
    /// Progress of the main loops.
    pub progress: Progress,
    fitness: Mutex<Fitness>,
}

/// A change of the shared state that status depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateChange {
    /// The state of the tenant with this UID changed.
    Tenant(String),
    /// The verdict on the object of this kind and UID changed, or other state that its status shows.
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
            warming_up: AtomicBool::new(false),
            budgets: BudgetStates::default(),
            progress: Progress::default(),
            fitness: Mutex::new(Fitness::new(Instant::now())),
        }
    }
}

impl SharedState {
    /// Returns the compiler's verdict on an object; none until the object was compiled.
    pub(crate) fn verdict(&self, kind: Kind, uid: &str) -> Option<Verdict> {
        self.verdicts.read().get(&(kind, uid.to_owned())).cloned()
    }

    /// Sets a verdict, and notifies subscribers if it changed.
    pub(crate) fn set_verdict(&self, kind: Kind, uid: &str, verdict: Verdict) {
        {
            let mut verdicts = self.verdicts.write();
            let key = (kind, uid.to_owned());
            if verdicts.get(&key) == Some(&verdict) {
                return;
            }
            verdicts.insert(key, verdict);
        }
        // Fails on a follower, which has no subscribers.
        let _ = self.changes.send(StateChange::Verdict(kind, uid.to_owned()));
    }

    /// Notifies subscribers that state of an object other than its verdict changed.
    pub(crate) fn notify(&self, kind: Kind, uid: &str) {
        let _ = self.changes.send(StateChange::Verdict(kind, uid.to_owned()));
    }

    /// Removes the verdict on a deleted object.
    pub(crate) fn remove_verdict(&self, kind: Kind, uid: &str) {
        self.verdicts.write().remove(&(kind, uid.to_owned()));
    }

    /// Returns how far the policy of a tenant is enforced.
    pub(crate) fn tenant_state(&self, uid: &str) -> TenantState {
        self.tenants.read().get(uid).cloned().unwrap_or_default()
    }

    /// Updates the state of a tenant, and notifies subscribers if it changed.
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

    /// Removes the state of a deleted tenant.
    pub(crate) fn remove_tenant(&self, uid: &str) {
        self.tenants.write().remove(uid);
    }

    /// Returns whether this replica began to lead only recently, so that missing state may just not have arrived yet.
    pub(crate) fn is_warming_up(&self) -> bool {
        self.warming_up.load(Ordering::Acquire)
    }

    /// Starts or ends the warm-up of a new leader. At its end, subscribers are notified of all tenants.
    pub(crate) fn set_warming_up(&self, warming_up: bool) {
        self.warming_up.store(warming_up, Ordering::Release);
        if !warming_up {
            let uids: Vec<String> = self.tenants.read().keys().cloned().collect();
            for uid in uids {
                let _ = self.changes.send(StateChange::Tenant(uid));
            }
        }
    }

    /// Updates the record of this leader's proofs.
    pub(crate) fn update_fitness(&self, update: impl FnOnce(&mut Fitness)) {
        update(&mut self.fitness.lock());
    }

    /// Returns whether this leader has to give up the Lease, because it cannot prove that its policies are current.
    pub(crate) fn is_unfit(&self) -> bool {
        self.fitness.lock().is_lost(Instant::now())
    }

    /// Removes all verdicts, tenant states and budgets. They become outdated when another replica leads.
    pub(crate) fn clear(&self) {
        self.verdicts.write().clear();
        self.budgets.clear();
        self.tenants.write().clear();
    }

    /// Subscribes to changes from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<StateChange> {
        self.changes.subscribe()
    }

    /// Requests a compilation of a tenant's policy, because its keys, namespaces or revocations changed.
    pub(crate) fn request_compilation(&self, tenant_uid: &str) {
        let _ = self.compilation_requests.send(tenant_uid.to_owned());
    }

    /// Subscribes to the UIDs of tenants whose compilation is requested.
    pub(crate) fn compilation_requests(&self) -> broadcast::Receiver<String> {
        self.compilation_requests.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_state_does_not_notify() {
        let shared = SharedState::default();
        let mut changes = shared.changes();
        shared.update_tenant_state("u-1", |state| state.generation = 3);
        shared.update_tenant_state("u-1", |state| state.generation = 3);
        assert_eq!(changes.try_recv().unwrap(), StateChange::Tenant("u-1".into()));
        assert!(changes.try_recv().is_err());
    }
}
