//! Publishes the policies of all tenants. A policy is recompiled within milliseconds of a change, written by
//! compare-and-swap, handed to the control streams through [`Policies`](mcp_fleet_core::shared_state::Policies), and proved to
//! be current every two to four seconds. Start at [`run`]; each tenant has a [`worker`].

mod entries;
mod freshness;
mod inputs;
mod later;
mod rest;
mod restore;
mod snapshot;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use mcp_fleet_core::labels::{self, OwnerLabels};
use mcp_fleet_core::retry::jittered;
use mcp_fleet_core::shared_state::Fitness;
use mcp_fleet_crds::MCPTenant;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::error;
use crate::kill_switch;
use crate::kubernetes::cache::{Cache, Change, Entry};
use crate::tasks::ended;

use freshness::FreshnessError;
use worker::Signals;

/// How often the cache is proved to be current.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);

/// How often the dispatch of changes reports that it runs, without any change.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Publishes the policies of all tenants and proves that they are current. Never returns.
pub(crate) async fn run(ctx: Arc<Context>) {
    let since = Instant::now();
    let (proofs, latest) = watch::channel(None);
    let wake = Arc::new(Notify::new());
    tokio::join!(dispatch(&ctx, since, latest, &wake), prove(&ctx, &proofs, &wake));
}

/// Publishes the policies of all tenants with a cache that a test fills, and which is therefore always current.
#[cfg(test)]
pub(crate) async fn run_with_current_cache(ctx: Arc<Context>) {
    let since = Instant::now();
    let (proofs, latest) = watch::channel(None);
    let prove = async {
        loop {
            proofs.send_replace(kill_switch::observe(&ctx).await.ok());
            tokio::time::sleep(PROOF_INTERVAL).await;
        }
    };
    let wake = Arc::default();
    tokio::join!(dispatch(&ctx, since, latest, &wake), prove);
}

/// Proves periodically that the cache is current, and at once when a worker needs a proof.
async fn prove(ctx: &Context, prover: &watch::Sender<Option<Instant>>, wake: &Notify) {
    let observed_loop = ctx.shared_state.progress.observe("the proofs of freshness");
    let mut was_ok = true;
    loop {
        observed_loop.report();
        let started = Instant::now();
        match prove_once(ctx).await {
            Ok(read) => {
                prover.send_replace(Some(read));
                ctx.shared_state.update_fitness(|fitness| fitness.proved(tokio::time::Instant::now()));
                was_ok = true;
            }
            Err(error) => {
                ctx.shared_state.update_fitness(Fitness::failed);
                if was_ok {
                    tracing::warn!(error = error::chain(&error), "failed to prove that policies are current");
                }
                was_ok = false;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause_after(started.elapsed()))) => {}
            () = wake.notified() => {}
        }
    }
}

/// Proves that the cache is current, and reads the kill switch, which every proof carries. Returns the time as of which
/// both are known.
async fn prove_once(ctx: &Context) -> Result<Instant, FreshnessError> {
    let switch = async { kill_switch::observe(ctx).await.map_err(|error| FreshnessError::KillSwitch(error.into())) };
    let (proved, read) = tokio::try_join!(freshness::prove(&ctx.client, &ctx.cache), switch)?;
    Ok(proved.min(read))
}

/// Tries periodically what a leader has to be able to prove, until that succeeds.
pub(crate) async fn until_proved(ctx: &Context) {
    let can_prove = async || {
        freshness::prove(&ctx.client, &ctx.cache).await.is_ok()
            && kill_switch::fetch(&ctx.client, &ctx.config.namespace).await.is_ok()
    };
    while !can_prove().await {
        tokio::time::sleep(jittered(PROOF_INTERVAL)).await;
    }
}

/// Returns the pause after a proof that took this long. Slow proofs run less often, but often enough that policies do
/// not become stale, which would deny the calls of all tenants.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(10).clamp(PROOF_INTERVAL, PROOF_INTERVAL * 2)
}

/// Runs a worker for each tenant, and wakes it when one of the tenant's objects changes.
async fn dispatch(ctx: &Arc<Context>, since: Instant, proven: watch::Receiver<Option<Instant>>, wake: &Notify) {
    let (mut changes, mut compilation_requests) = (ctx.cache.subscribe(), ctx.shared_state.compilation_requests());
    let mut workers: HashMap<String, Wake> = HashMap::new();
    let mut tasks = JoinSet::new();
    let (mut affected, mut urgent) = (Affected::All, false);
    let observed_loop = ctx.shared_state.progress.observe("the publisher of policies");
    let mut tick = tokio::time::interval(REPORT_INTERVAL);
    loop {
        observed_loop.report();
        let uids: Vec<String> = match affected {
            Affected::All => ctx.cache.all_tenants().iter().filter_map(|tenant| tenant.uid()).collect(),
            Affected::Some(uids) => uids,
        };
        for uid in uids {
            let worker = workers.entry(uid.clone()).or_insert_with(|| {
                let worker = Wake::default();
                let Wake { changed, urgent, touched } = worker.clone();
                let signals = Signals { changed, urgent, touched, proven: proven.clone(), since };
                let ctx = Arc::clone(ctx);
                let name = uid.clone();
                tasks.spawn(async move {
                    worker::run(ctx, uid, signals).await;
                    name
                });
                // The worker publishes nothing before a proof.
                wake.notify_one();
                worker
            });
            if urgent {
                worker.urgent.store(true, Ordering::Relaxed);
            }
            worker.changed.notify_one();
        }
        urgent = false;
        affected = tokio::select! {
            change = changes.recv() => match change {
                Ok(Change::Owned(labels)) => {
                    if let Some(worker) = labels.get(labels::TENANT_UID).and_then(|uid| workers.get(uid)) {
                        if is_snapshot(&labels) {
                            worker.touched.store(true, Ordering::Relaxed);
                        }
                        // The object may be the RoleBinding that lets the operator write to the runtime namespace.
                        worker.changed.notify_one();
                    }
                    Affected::Some(Vec::new())
                }
                Ok(change) => {
                    urgent = is_urgent(&ctx.cache, &change);
                    Affected::Some(tenants_of(&ctx.cache, &change))
                }
                Err(RecvError::Lagged(_)) => Affected::All,
                Err(RecvError::Closed) => return,
            },
            request = compilation_requests.recv() => match request {
                Ok(uid) => {
                    // It may be a revocation.
                    urgent = true;
                    Affected::Some(vec![uid])
                }
                Err(RecvError::Lagged(_)) => Affected::All,
                Err(RecvError::Closed) => return,
            },
            _ = tick.tick() => Affected::Some(Vec::new()),
            Some(joined) = tasks.join_next() => {
                if let Some(uid) = ended(joined) {
                    workers.remove(&uid);
                }
                Affected::Some(Vec::new())
            }
        };
    }
}

/// Signals with which a worker is woken.
#[derive(Clone, Default)]
struct Wake {
    changed: Arc<Notify>,
    urgent: Arc<AtomicBool>,
    touched: Arc<AtomicBool>,
}

fn is_snapshot(labels: &OwnerLabels) -> bool {
    labels.get(labels::COMPONENT) == Some(snapshot::COMPONENT)
}

/// Whether a change may stop calls that are allowed now. One that cannot be looked up may.
fn is_urgent(cache: &Cache, change: &Change) -> bool {
    match change {
        Change::Principal(namespace, name) => match cache.objects.principals.get(namespace, name) {
            Some(Entry::Readable(found)) => found.spec.suspend || found.spec.revoke_issued_before.is_some(),
            Some(Entry::Unreadable(_)) | None => true,
        },
        Change::Tenant(name) => match cache.objects.tenants.get("", name) {
            Some(Entry::Readable(found)) => found.spec.suspend || found.metadata.deletion_timestamp.is_some(),
            Some(Entry::Unreadable(_)) | None => true,
        },
        _ => false,
    }
}

/// The tenants that a change affects.
enum Affected {
    All,
    Some(Vec<String>),
}

fn tenants_of(cache: &Cache, change: &Change) -> Vec<String> {
    let uids = |tenants: Vec<Arc<MCPTenant>>| tenants.iter().filter_map(|tenant| tenant.uid()).collect();
    let with_name = |name: &str| match cache.tenant_named(name) {
        // A tenant that is created or deleted can also take or free namespaces that other tenants claim.
        Some(changed) => uids(cache.rivals(&changed)),
        None => uids(cache.all_tenants()),
    };
    let of_namespace = |namespace: &str| uids(cache.claiming(namespace));
    match change {
        Change::Tenant(name) => with_name(name),
        Change::Server(namespace, _)
        | Change::Scope(namespace, _)
        | Change::Principal(namespace, _)
        | Change::Budget(namespace, _)
        | Change::Namespace(namespace) => of_namespace(namespace),
        Change::Endpoints(labels) => labels.get(labels::TENANT_UID).map(str::to_owned).into_iter().collect(),
        Change::Owned(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::cache::testing::WatchedApi;

    #[tokio::test]
    async fn a_proof_includes_a_read_of_the_kill_switch() {
        let api = WatchedApi::default();
        let (ctx, _watches) = Context::of_client(api.client()).await;
        let put = |data| {
            let metadata = json!({"name": kill_switch::NAME, "namespace": "mcp-fleet-system"});
            api.put("configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}));
        };
        let is_on = || ctx.shared_state.kill_switch.subscribe().borrow().as_ref().map(|known| known.switch.is_on());
        prove_once(&ctx).await.unwrap();
        assert_eq!(is_on(), Some(false));
        put(json!({"stop": "true"}));
        prove_once(&ctx).await.unwrap();
        assert_eq!(is_on(), Some(true));
        // An object that cannot be decoded: the switch is not known, so nothing is proved.
        put(json!(5));
        assert!(matches!(prove_once(&ctx).await, Err(FreshnessError::KillSwitch(_))));
        assert_eq!(is_on(), Some(true));
    }

    #[test]
    fn slow_proofs_run_less_often_but_before_policies_become_stale() {
        assert_eq!(pause_after(Duration::ZERO), Duration::from_secs(2));
        assert_eq!(pause_after(Duration::from_millis(300)), Duration::from_secs(3));
        assert_eq!(pause_after(Duration::MAX), Duration::from_secs(4));
    }
}
