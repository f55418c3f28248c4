//! A tenant whose controllers, policy publisher and gateways run against the fake API server. It shows which statuses and
//! Events the operator writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_control::EncodedPolicy;
use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::ledger::book::{Amount, GrantedLease, Holder, LeaseRequest, Report, ReportItem};
use mcp_fleet_core::ledger::record::Owner;
use mcp_fleet_core::ledger::{AnyStore, Ledger, maintain};
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::condition::ConditionReason;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::{FakeApi, TestContext};
use crate::context::Context;
use crate::controllers;
use crate::controllers::budget::{self, Budgets};
use crate::controllers::principal::Principals;
use crate::controllers::scope::Scopes;
use crate::controllers::server::Servers;
use crate::controllers::tenant::Tenants;
use crate::credentials::tokens::KeyStore;
use crate::kubernetes::cache::{Cache, CacheWriters, Change};
use crate::ledger;
use crate::policy::publish;

/// UID of the tenant.
pub(crate) const TENANT_UID: &str = "u-1";
/// How long a gateway takes to acknowledge a policy.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(50);

/// A running operator with the tenant `acme`. Use it with a paused clock.
pub(crate) struct Fleet {
    pub api: FakeApi,
    ctx: Arc<Context>,
    /// What only the leader runs.
    leader: JoinSet<()>,
    gateways: HashMap<String, AbortOnDropHandle<()>>,
    /// Number of leases so far.
    leases: u64,
}

impl Fleet {
    /// Starts the operator.
    pub(crate) async fn start(tenant: &MCPTenant) -> Self {
        let mut test = TestContext::new();
        test.elected.send_replace(Some(1));
        test.add_tenant(tenant);
        let TestContext { ctx, api, writers, .. } = test;
        tokio::spawn(deliver(api.watch(), ctx.cache.clone(), writers));
        api.apply(&path("", "mcptenants", "acme"), serde_json::to_value(tenant).unwrap());
        let mut fleet = Self { ctx, api, leader: JoinSet::new(), gateways: HashMap::new(), leases: 0 };
        fleet.lead().await;
        fleet
    }

    /// Runs what only the leader does.
    async fn lead(&mut self) {
        let (ctx, leader) = (&self.ctx, &mut self.leader);
        let ledger = ledger::open(ctx.client.clone(), &ctx.config.namespace).await;
        ctx.shared_state.set_warming_up(true);
        let shared = ctx.shared_state.clone();
        leader.spawn(async move {
            tokio::time::sleep(crate::lead::WARM_UP_TIME).await;
            shared.set_warming_up(false);
        });
        leader.spawn(publish(ctx.clone(), ledger));
        leader.spawn(budget::run(ctx.clone()));
        leader.spawn(controllers::run::<Tenants>(ctx.clone()));
        leader.spawn(controllers::run::<Servers>(ctx.clone()));
        leader.spawn(controllers::run::<Scopes>(ctx.clone()));
        leader.spawn(controllers::run::<Principals>(ctx.clone()));
        leader.spawn(controllers::run::<Budgets>(ctx.clone()));
    }

    /// Replaces the leader. All gateways are disconnected.
    pub(crate) async fn replace_leader(&mut self) {
        self.gateways.clear();
        self.leader.shutdown().await;
        self.ctx.shared_state.clear();
        self.lead().await;
    }

    /// Connects a gateway, which acknowledges every policy.
    pub(crate) fn connect(&mut self, pod: &str) {
        let (shared, name) = (self.ctx.shared_state.clone(), pod.to_owned());
        let task = tokio::spawn(async move {
            let mut policies = shared.policies.subscribe(TENANT_UID);
            let set = |generation| {
                shared.update_tenant_state(TENANT_UID, |state| state.set_enforced(&name, generation));
            };
            set(0);
            let mut enforced = 0;
            loop {
                let generation =
                    policies.borrow_and_update().published.as_ref().map_or(0, |published| published.policy.generation);
                if generation > enforced {
                    tokio::time::sleep(ACKNOWLEDGEMENT).await;
                    set(generation);
                    enforced = generation;
                } else if policies.changed().await.is_err() {
                    return;
                }
            }
        });
        self.gateways.insert(pod.to_owned(), AbortOnDropHandle::new(task));
    }

    /// Disconnects a gateway.
    pub(crate) fn disconnect(&mut self, pod: &str) {
        drop(self.gateways.remove(pod).unwrap());
        self.ctx.shared_state.update_tenant_state(TENANT_UID, |state| state.remove_gateway(pod));
    }

    /// Returns generation and bytes of the policy that gateways get.
    pub(crate) fn published(&self) -> Option<(u64, EncodedPolicy)> {
        let published = self.ctx.shared_state.policies.published(TENANT_UID)?;
        Some((published.policy.generation, (*published.encoded).clone()))
    }

    /// Returns the generation that is confirmed to be current.
    pub(crate) fn proved(&self) -> Option<u64> {
        let state = self.ctx.shared_state.policies.subscribe(TENANT_UID).borrow().clone();
        state.proof.map(|proof| proof.generation)
    }

    /// Loses the tenant's keys: the Secret and the copy in memory.
    pub(crate) fn lose_keys(&mut self) {
        self.leader.abort_all();
        let (client, namespace) = (self.ctx.client.clone(), self.ctx.config.namespace.clone());
        let secret = crate::credentials::tokens::secret_name(TENANT_UID);
        self.api.remove(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}"));
        self.ctx = Arc::new(Context { keys: KeyStore::new(client, &namespace), ..(*self.ctx).clone() });
    }

    /// Lets a gateway refuse the newest policy.
    pub(crate) fn refuse(&self, problem: &str) {
        let error = Some((ConditionReason::PolicyRefused, problem.to_owned()));
        self.ctx.shared_state.update_tenant_state(TENANT_UID, |state| state.error = error);
    }

    /// Charges a lease for one call to a budget: `spendLimit` or the name of an `MCPBudget`.
    pub(crate) async fn lease(&mut self, budget: &str) {
        self.grant(budget).await;
    }

    /// Charges a call of a principal to a budget, and reports it.
    pub(crate) async fn spend(&mut self, budget: &str, principal: &str) {
        let (owner, holder, granted) = self.grant(budget).await;
        let (server, tool) = ("files-0".to_owned(), "read".to_owned());
        let item = ReportItem { principal: principal.to_owned(), server, tool, amount: granted.amount };
        let report =
            Report { holder, lease: granted.lease, sequence: 1, total: granted.amount, last: true, items: vec![item] };
        let ledger = self.ctx.shared_state.policies.leader_state().unwrap().ledger;
        let reported = ledger.report(&owner.tenant_uid, &owner.budget_uid, report);
        let written = tokio::time::timeout(Duration::from_mins(1), async {
            tokio::select! {
                result = reported => result.unwrap().unwrap(),
                () = maintain(&ledger) => {}
            }
        });
        written.await.expect("the report was not written");
    }

    async fn grant(&mut self, budget: &str) -> (Owner, Holder, GrantedLease) {
        self.leases += 1;
        let policy = self.ctx.shared_state.policies.published(TENANT_UID).unwrap().policy;
        let budget = policy.budgets.iter().find(|found| found.name == budget).unwrap();
        let amount = Amount { micros: 1_000_000, calls: 1 };
        let holder = Holder { pod_uid: "pod".into(), epoch: "epoch".into() };
        let request = LeaseRequest { holder: holder.clone(), number: self.leases, wanted: amount, minimum: amount };
        let owner = Owner {
            tenant: "acme".into(),
            tenant_uid: TENANT_UID.into(),
            budget: budget.name.clone(),
            budget_uid: budget.uid.clone(),
        };
        let leader = self.ctx.shared_state.policies.leader_state().unwrap();
        let granted = leader.ledger.grant(&owner, budget, &request).await.unwrap().result.unwrap();
        (owner, holder, granted)
    }

    /// Returns the context.
    pub(crate) fn context(&self) -> &Context {
        &self.ctx
    }

    /// Returns how many objects of each kind have been reconciled: tenants, servers, scopes, principals, budgets.
    pub(crate) fn reconciles(&self) -> [u64; 5] {
        let reconciles = &self.ctx.metrics.reconciles;
        ["tenant", "server", "scope", "principal", "budget"]
            .map(|kind| reconciles.with_label_values(&[kind, "ok"]).get())
    }

    /// Creates or changes an object in the tenant's namespace.
    pub(crate) fn apply(&self, kind: &str, name: &str, spec: &Value) {
        let metadata = json!({"name": name, "namespace": "acme", "finalizers": [labels::FINALIZER]});
        let object = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        self.api.apply(&path("acme", &format!("{}s", kind.to_lowercase()), name), object);
    }

    /// Waits until the operator has nothing more to do. Returns how often each status was written, by resource and name.
    pub(crate) async fn settle(&self) -> BTreeMap<String, usize> {
        // Longer than any status is held back.
        tokio::time::sleep(Duration::from_secs(40)).await;
        let mut counts = BTreeMap::new();
        for write in self.api.take_writes() {
            if let Some(object) = write.short().strip_prefix("PUT ").and_then(|path| path.strip_suffix("/status")) {
                *counts.entry(object.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// Returns status and reason of a condition of an object.
    pub(crate) fn condition(&self, resource: &str, name: &str, kind: &str) -> (String, String) {
        let namespace = if resource == "mcptenants" { "" } else { "acme" };
        let object = self.api.get(&path(namespace, resource, name)).unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
        let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
        (field("status"), field("reason"))
    }
}

/// Publishes policies.
async fn publish(ctx: Arc<Context>, ledger: Arc<Ledger<AnyStore>>) {
    let _leading = ctx.shared_state.policies.start_leading(ledger, 1);
    publish::run_with_current_cache(ctx.clone()).await;
}

/// Returns the path of an object of one of our kinds.
fn path(namespace: &str, resource: &str, name: &str) -> String {
    let namespace = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
    format!("/apis/mcp-fleet.dev/v1alpha1/{namespace}{resource}/{name}")
}

/// Puts stored objects into the cache, and announces them as the cache's watches do: unless only their status changed.
async fn deliver(mut stored: UnboundedReceiver<(String, Value)>, cache: Cache, mut writers: CacheWriters) {
    let mut generations = HashMap::new();
    while let Some((path, object)) = stored.recv().await {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let labels: Labels = serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default();
        let labels = Arc::new((&labels).into());
        let generation = object["metadata"]["generation"].clone();
        let change = match object["kind"].as_str() {
            Some("MCPTenant") => put(|object| writers.tenants.put(object), object, Change::Tenant(name)),
            Some("MCPServer") => put(|object| writers.servers.put(object), object, Change::Server(namespace, name)),
            Some("MCPScope") => put(|object| writers.scopes.put(object), object, Change::Scope(namespace, name)),
            Some("MCPPrincipal") => {
                put(|object| writers.principals.put(object), object, Change::Principal(namespace, name))
            }
            Some("MCPBudget") => put(|object| writers.budgets.put(object), object, Change::Budget(namespace, name)),
            Some("EndpointSlice") => {
                put(|object| drop(writers.endpoints.put(Arc::new(object))), object, Change::Endpoints(labels))
            }
            _ => continue,
        };
        if generations.insert(path, generation.clone()) != Some(generation) {
            cache.announce(change);
        }
    }
}

fn put<K: DeserializeOwned>(write: impl FnOnce(K), object: Value, change: Change) -> Change {
    write(serde_json::from_value(object).unwrap());
    change
}
