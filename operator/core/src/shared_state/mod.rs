//! State that the parts of the operator share: the policy compiler and the control server write it, the controllers
//! read it for status. Controllers also request compilations here. Start at [`SharedState`].

mod budgets;
mod fitness;
mod homes;
mod policies;
mod streams;
pub mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::Instant;

pub use budgets::{BudgetState, BudgetStates};
pub use fitness::Fitness;
pub use homes::{Answered, BeatContext, Homes, Look};
pub use policies::{LeaderState, Policies, PolicyState, Proof, Published};
pub use streams::{Outbound, Streams};

use crate::kill_switch::KnownSwitch;
use crate::progress::Progress;
use crate::shared_state::verdict::{Kind, PolicyEntry, TenantState};

/// Number of the time during which one replica leads. Later leaders have greater terms.
pub type Term = u64;

/// Number of published policies that are read at a time.
const MAX_SNAPSHOT_READS: usize = 16;

/// What the published policy of a tenant contains, by kind and UID of the object.
pub type PolicyEntries = BTreeMap<(Kind, String), PolicyEntry>;

/// State that the policy compiler, the control server and the controllers share.
#[derive(Debug)]
pub struct SharedState {
    tenants: RwLock<HashMap<String, Tenant>>,
    changes: broadcast::Sender<StateChange>,
    compilation_requests: broadcast::Sender<String>,
    /// Published policies, for the control streams to push, and the ledger while this replica leads.
    pub policies: Policies,
    /// Control streams of the gateways that are connected to this replica.
    pub streams: Streams,
    /// The fleet's kill switch.
    pub kill_switch: KnownSwitch,
    warming_up: AtomicBool,
    /// Spend of the budgets.
    pub budgets: BudgetStates,
    /// Since when statuses have been held back, by UID of the object.
    held_back: Mutex<HashMap<String, Instant>>,
    /// Progress of the main loops.
    pub progress: Progress,
    fitness: Mutex<Fitness>,
    /// The turns in which policies are compiled, first come, first served. A large tenant has one turn at a time, like any
    /// other, and leaves a processor to the rest of the operator.
    pub compilation_turns: Semaphore,
    /// The turns in which published policies are read. A new leader of a large fleet has thousands to read, and they must
    /// not keep the API server from answering the renewal of its Lease.
    pub snapshot_reads: Semaphore,
}

/// State of one tenant.
#[derive(Debug, Default)]
struct Tenant {
    state: TenantState,
    /// Shared with the worker that compiled them.
    entries: Arc<PolicyEntries>,
}

/// A change of the shared state that status depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// The published policy of the tenant with this UID, its gateways or its error changed. Only the tenant shows them.
    Tenant(String),
    /// What the policy contains of these objects changed, or which gateways enforce that: UIDs by kind.
    Objects(Arc<BTreeMap<Kind, BTreeSet<String>>>),
    /// The reason changed why objects of the tenant with this UID are not enforced. Enforced objects do not show it.
    Unenforced(String),
    /// The image changed that the pods of the tenant with this UID have to run, or its update is finished.
    Rollout(String),
    /// The spend of these budgets changed: UIDs. The UID of a tenant is that of its `spendLimit`.
    Spending(Arc<BTreeSet<String>>),
}

impl Default for SharedState {
    fn default() -> Self {
        Self {
            tenants: RwLock::default(),
            changes: broadcast::channel(1024).0,
            compilation_requests: broadcast::channel(1024).0,
            policies: Policies::default(),
            streams: Streams::default(),
            kill_switch: KnownSwitch::default(),
            warming_up: AtomicBool::new(false),
            budgets: BudgetStates::default(),
            progress: Progress::default(),
            fitness: Mutex::new(Fitness::new(Instant::now())),
            held_back: Mutex::default(),
            compilation_turns: Semaphore::new(1),
            snapshot_reads: Semaphore::new(MAX_SNAPSHOT_READS),
        }
    }
}

impl Tenant {
    /// Applies an update of the state. Returns the changes to notify subscribers of.
    fn update(&mut self, uid: &str, update: impl FnOnce(&mut TenantState)) -> Vec<StateChange> {
        let before = self.state.clone();
        update(&mut self.state);
        self.state.raise_enforced_by_all();
        let mut changes = Vec::new();
        if self.state != before {
            changes.push(StateChange::Tenant(uid.to_owned()));
        }
        if self.state.error != before.error {
            changes.push(StateChange::Unenforced(uid.to_owned()));
        }
        let levels = |state: &TenantState| [state.enforced_by_all, state.enforced_by_any()];
        let (old, new) = (levels(&before), levels(&self.state));
        if old != new {
            let differs = |since: u64| old.map(|level| since <= level) != new.map(|level| since <= level);
            let affected = self.entries.iter().filter(|(_, entry)| differs(entry.since)).map(|(key, _)| key);
            changes.extend(objects(affected));
        }
        changes
    }
}

/// Returns the change of these objects; none if there are none.
fn objects<'a>(keys: impl Iterator<Item = &'a (Kind, String)>) -> Option<StateChange> {
    let mut by_kind: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
    for (kind, uid) in keys {
        by_kind.entry(*kind).or_default().insert(uid.clone());
    }
    (!by_kind.is_empty()).then(|| StateChange::Objects(Arc::new(by_kind)))
}

impl SharedState {
    /// Returns how far the policy of a tenant is enforced, and what it contains of an object: nothing before this replica
    /// has compiled the object.
    pub fn enforcement(&self, tenant_uid: &str, kind: Kind, uid: &str) -> (TenantState, Option<PolicyEntry>) {
        let tenants = self.tenants.read();
        let Some(tenant) = tenants.get(tenant_uid) else { return Default::default() };
        (tenant.state.clone(), tenant.entries.get(&(kind, uid.to_owned())).cloned())
    }

    /// Returns whether all gateways enforce an object as of its `metadata.generation`.
    pub fn is_enforced(&self, tenant_uid: &str, kind: Kind, uid: &str, generation: i64) -> bool {
        let tenants = self.tenants.read();
        let Some(tenant) = tenants.get(tenant_uid) else { return false };
        tenant.entries.get(&(kind, uid.to_owned())).is_some_and(|entry| {
            entry.verdict.object_generation >= generation && entry.since <= tenant.state.enforced_by_all
        })
    }

    /// Records what the newest published policy of a tenant contains, and notifies subscribers of the objects for which
    /// that changed.
    pub fn set_published(&self, tenant_uid: &str, generation: u64, digest: String, entries: Arc<PolicyEntries>) {
        let changes = {
            let mut tenants = self.tenants.write();
            let tenant = tenants.entry(tenant_uid.to_owned()).or_default();
            let before = std::mem::replace(&mut tenant.entries, entries);
            for (_, uid) in before.keys().filter(|key| !tenant.entries.contains_key(*key)) {
                self.release(uid);
            }
            let differing = tenant.entries.iter().filter(|(key, entry)| before.get(*key) != Some(*entry));
            let differing = objects(differing.map(|(key, _)| key));
            let mut changes = tenant.update(tenant_uid, |state| {
                state.generation = generation;
                state.digest = Some(digest);
            });
            changes.extend(differing);
            changes
        };
        self.notify(changes);
    }

    /// Announces that the rollout of an image has come to a tenant, or is finished there.
    pub fn announce_rollout(&self, tenant_uid: &str) {
        self.notify([StateChange::Rollout(tenant_uid.to_owned())]);
    }

    /// Notifies subscribers of changes.
    fn notify(&self, changes: impl IntoIterator<Item = StateChange>) {
        for change in changes {
            // Fails on a follower, which has no subscribers.
            let _ = self.changes.send(change);
        }
    }

    /// Updates the state of a tenant, and notifies subscribers of what changed.
    pub fn update_tenant_state(&self, uid: &str, update: impl FnOnce(&mut TenantState)) {
        let changes = self.tenants.write().entry(uid.to_owned()).or_default().update(uid, update);
        self.notify(changes);
    }

    /// Returns whether the policy of a tenant may accept another public name ([`TenantState::may_accept`]).
    pub fn may_accept_name(&self, tenant_uid: &str, hostname: &str) -> bool {
        self.tenants.read().get(tenant_uid).is_some_and(|tenant| tenant.state.may_accept(hostname))
    }

    /// Removes the state of a deleted tenant.
    pub fn remove_tenant(&self, uid: &str) {
        self.tenants.write().remove(uid);
    }

    /// Notifies subscribers that the spend of budgets changed.
    pub fn notify_spending(&self, budget_uids: BTreeSet<String>) {
        if !budget_uids.is_empty() {
            self.notify([StateChange::Spending(Arc::new(budget_uids))]);
        }
    }

    /// Returns how much longer a status is held back that may soon be outdated; none if it was held back for `limit`.
    pub fn hold_back(&self, uid: &str, limit: Duration) -> Option<Duration> {
        let since = *self.held_back.lock().entry(uid.to_owned()).or_insert_with(Instant::now);
        limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    /// Records that nothing of an object's status is held back any more.
    pub fn release(&self, uid: &str) {
        self.held_back.lock().remove(uid);
    }

    /// Returns whether this replica began to lead only recently, so that missing state may just not have arrived yet.
    pub fn is_warming_up(&self) -> bool {
        self.warming_up.load(Ordering::Acquire)
    }

    /// Starts or ends the warm-up of a new leader. At its end, subscribers are notified of all tenants and of the objects
    /// that are not enforced.
    pub fn set_warming_up(&self, warming_up: bool) {
        self.warming_up.store(warming_up, Ordering::Release);
        if !warming_up {
            let uids: Vec<String> = self.tenants.read().keys().cloned().collect();
            self.notify(
                uids.into_iter().flat_map(|uid| [StateChange::Tenant(uid.clone()), StateChange::Unenforced(uid)]),
            );
        }
    }

    /// Updates the record of this leader's proofs.
    pub fn update_fitness(&self, update: impl FnOnce(&mut Fitness)) {
        update(&mut self.fitness.lock());
    }

    /// Returns whether this leader has to give up the Lease, because it cannot prove that its policies are current.
    pub fn is_unfit(&self) -> bool {
        self.fitness.lock().is_lost(Instant::now())
    }

    /// Removes the state of all tenants, budgets and the kill switch. It becomes outdated when another replica leads.
    pub fn clear(&self) {
        self.budgets.clear();
        self.kill_switch.clear();
        self.tenants.write().clear();
        self.held_back.lock().clear();
    }

    /// Subscribes to changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<StateChange> {
        self.changes.subscribe()
    }

    /// Requests a compilation of a tenant's policy, because its keys, namespaces or revocations changed.
    pub fn request_compilation(&self, tenant_uid: &str) {
        let _ = self.compilation_requests.send(tenant_uid.to_owned());
    }

    /// Subscribes to the UIDs of tenants whose compilation is requested.
    pub fn compilation_requests(&self) -> broadcast::Receiver<String> {
        self.compilation_requests.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::condition::ConditionReason;

    use super::*;
    use crate::shared_state::verdict::Verdict;

    fn entry(since: u64) -> PolicyEntry {
        let verdict =
            Verdict { ok: true, reason: ConditionReason::Resolved, message: String::new(), object_generation: 1 };
        PolicyEntry { verdict, since, has_address: false }
    }

    /// Publishes the scopes with these UIDs, each contained since a generation.
    fn publish(shared: &SharedState, generation: u64, scopes: &[(&str, u64)]) {
        let entries = scopes.iter().map(|(uid, since)| ((Kind::Scope, (*uid).to_owned()), entry(*since))).collect();
        shared.set_published("u-1", generation, "digest".into(), Arc::new(entries));
    }

    fn received(changes: &mut broadcast::Receiver<StateChange>) -> Vec<StateChange> {
        std::iter::from_fn(|| changes.try_recv().ok()).collect()
    }

    fn tenant() -> StateChange {
        StateChange::Tenant("u-1".into())
    }

    fn scope(uid: &str) -> StateChange {
        objects([(Kind::Scope, uid.to_owned())].iter()).unwrap()
    }

    #[test]
    fn an_unchanged_state_does_not_notify() {
        let shared = SharedState::default();
        let mut changes = shared.changes();
        shared.update_tenant_state("u-1", |state| state.generation = 3);
        shared.update_tenant_state("u-1", |state| state.generation = 3);
        assert_eq!(received(&mut changes), [tenant()]);
    }

    #[test]
    fn a_publication_and_its_acknowledgement_concern_only_what_changed() {
        let shared = SharedState::default();
        shared.update_tenant_state("u-1", |state| state.set_enforced("gateway-1", 3));
        publish(&shared, 3, &[("s-1", 1), ("s-2", 3)]);
        let mut changes = shared.changes();
        publish(&shared, 4, &[("s-1", 1), ("s-2", 4)]);
        assert_eq!(received(&mut changes), [tenant(), scope("s-2")]);
        assert!(shared.is_enforced("u-1", Kind::Scope, "s-1", 1) && !shared.is_enforced("u-1", Kind::Scope, "s-2", 1));
        shared.update_tenant_state("u-1", |state| state.set_enforced("gateway-1", 4));
        assert_eq!(received(&mut changes), [tenant(), scope("s-2")]);
        assert!(shared.is_enforced("u-1", Kind::Scope, "s-2", 1) && !shared.is_enforced("u-1", Kind::Scope, "s-2", 2));
    }

    #[test]
    fn an_acknowledgement_that_arrives_before_its_publication_is_recorded_counts() {
        let shared = SharedState::default();
        shared.update_tenant_state("u-1", |state| state.set_enforced("gateway-1", 3));
        publish(&shared, 3, &[("s-1", 3)]);
        assert!(shared.is_enforced("u-1", Kind::Scope, "s-1", 1));
    }

    #[test]
    fn an_error_concerns_the_tenant_and_objects_that_are_not_enforced() {
        let shared = SharedState::default();
        let mut changes = shared.changes();
        shared.update_tenant_state("u-1", |state| {
            state.error = Some((ConditionReason::PolicyNotPublished, "because".into()));
        });
        assert_eq!(received(&mut changes), [tenant(), StateChange::Unenforced("u-1".into())]);
    }
}
