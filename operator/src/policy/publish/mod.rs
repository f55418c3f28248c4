//! Publishes the policies of all tenants. A policy is recompiled within milliseconds of a change, written by
//! compare-and-swap, handed to the control streams through [`Policies`](crate::shared_state::Policies), and proved to
//! be current every two to four seconds. Start at [`run`]; each tenant has a [`worker`].

mod entries;
mod freshness;
mod inputs;
mod later;
mod restore;
mod snapshot;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::error;
use crate::kubernetes::cache::{Cache, Change};
use crate::kubernetes::labels;
use crate::retry::jittered;
use crate::shared_state::Fitness;
use crate::tasks::ended;
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
            proofs.send_replace(Some(Instant::now()));
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
        match freshness::prove(&ctx.client, &ctx.cache).await {
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

/// Proves periodically that the cache is current, until that succeeds.
pub(crate) async fn until_proved(ctx: &Context) {
    while freshness::prove(&ctx.client, &ctx.cache).await.is_err() {
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
    let mut affected = Affected::All;
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
                let worker = Wake { changed: Arc::default(), touched: Arc::default() };
                let Wake { changed, touched } = worker.clone();
                let signals = Signals { changed, touched, proven: proven.clone(), since };
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
            worker.changed.notify_one();
        }
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
                Ok(change) => Affected::Some(tenants_of(&ctx.cache, &change)),
                Err(RecvError::Lagged(_)) => Affected::All,
                Err(RecvError::Closed) => return,
            },
            request = compilation_requests.recv() => match request {
                Ok(uid) => Affected::Some(vec![uid]),
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
#[derive(Clone)]
struct Wake {
    changed: Arc<Notify>,
    touched: Arc<AtomicBool>,
}

fn is_snapshot(labels: &labels::Labels) -> bool {
    labels.get(labels::COMPONENT).is_some_and(|component| component == snapshot::COMPONENT)
}

/// The tenants that a change affects.
enum Affected {
    All,
    Some(Vec<String>),
}

fn tenants_of(cache: &Cache, change: &Change) -> Vec<String> {
    let with_name = |name: &str| {
        let changed = cache.all_tenants().into_iter().find(|tenant| tenant.name_any() == name);
        // A tenant that is created or deleted can also take or free namespaces that other tenants claim.
        let Some(changed) = changed else { return tenants_where(cache, |_| true) };
        let namespaces = [changed.spec.namespace.name.clone(), changed.runtime_namespace()];
        tenants_where(cache, |tenant| {
            tenant.name_any() == name
                || namespaces.contains(&tenant.spec.namespace.name)
                || namespaces.contains(&tenant.runtime_namespace())
        })
    };
    let of_namespace = |namespace: &str| tenants_where(cache, |tenant| tenant.spec.namespace.name == namespace);
    match change {
        Change::Tenant(name) => with_name(name),
        Change::Server(namespace, _)
        | Change::Scope(namespace, _)
        | Change::Principal(namespace, _)
        | Change::Budget(namespace, _) => of_namespace(namespace),
        Change::Namespace(namespace) => tenants_where(cache, |tenant| {
            tenant.spec.namespace.name == *namespace || tenant.runtime_namespace() == *namespace
        }),
        Change::Service(labels) => labels.get(labels::TENANT_UID).cloned().into_iter().collect(),
        Change::Owned(_) => Vec::new(),
    }
}

fn tenants_where(cache: &Cache, condition: impl Fn(&mcp_fleet_crds::MCPTenant) -> bool) -> Vec<String> {
    cache.all_tenants().iter().filter(|tenant| condition(tenant)).filter_map(|tenant| tenant.uid()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_proofs_run_less_often_but_before_policies_become_stale() {
        assert_eq!(pause_after(Duration::ZERO), Duration::from_secs(2));
        assert_eq!(pause_after(Duration::from_millis(300)), Duration::from_secs(3));
        assert_eq!(pause_after(Duration::MAX), Duration::from_secs(4));
    }
}
