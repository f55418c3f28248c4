//! Watches what policies are made of, and publishes them: compiled anew within milliseconds of a change, written by
//! compare-and-swap, left in the [`Policies`](crate::shared_state::Policies) for the streams to push, and proved to be fresh every couple of seconds.

mod freshness;
mod inputs;
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
use worker::Signals;

/// How often freshness is proved.
const PROOF_EVERY: Duration = Duration::from_secs(2);

/// Publishes and proves the policies of all tenants. Never returns.
pub(crate) async fn run(ctx: Arc<Context>) {
    let since = Instant::now();
    let (proofs, latest) = watch::channel(None);
    let wake = Arc::new(Notify::new());
    tokio::join!(dispatch(&ctx, since, latest, &wake), prove(&ctx, &proofs, &wake));
}

/// Proves every couple of seconds that the stores are current, and at once when a worker waits for it.
async fn prove(ctx: &Context, prover: &watch::Sender<Option<Instant>>, wake: &Notify) {
    let mut quiet = true;
    loop {
        let started = Instant::now();
        match freshness::prove(&ctx.client, &ctx.cache).await {
            Ok(read) => {
                prover.send_replace(Some(read));
                quiet = true;
            }
            Err(error) => {
                if quiet {
                    tracing::warn!(error = error::chain(&error), "failed to prove that policies are fresh");
                }
                quiet = false;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause_after(started.elapsed()))) => {}
            () = wake.notified() => {}
        }
    }
}

/// What takes long is done less often; but never so seldom that policies grow stale, which would deny the calls of all
/// tenants.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(10).clamp(PROOF_EVERY, PROOF_EVERY * 2)
}

/// Keeps a worker for each tenant, and wakes it when something of it changes.
async fn dispatch(ctx: &Arc<Context>, since: Instant, proven: watch::Receiver<Option<Instant>>, wake: &Notify) {
    let (mut changes, mut compilation_requests) = (ctx.cache.subscribe(), ctx.shared_state.compilation_requests());
    let mut workers: HashMap<String, Wake> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut concerned = Concerned::All;
    loop {
        let uids: Vec<String> = match concerned {
            Concerned::All => ctx.cache.tenants.state().iter().filter_map(|tenant| tenant.uid()).collect(),
            Concerned::Some(uids) => uids,
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
                // It publishes nothing before a proof.
                wake.notify_one();
                worker
            });
            worker.changed.notify_one();
        }
        concerned = tokio::select! {
            change = changes.recv() => match change {
                Ok(Change::Owned(labels)) => {
                    if let Some(worker) = labels.get(labels::TENANT_UID).and_then(|uid| workers.get(uid)) {
                        if is_snapshot(&labels) {
                            worker.touched.store(true, Ordering::Relaxed);
                        }
                        // It may be what lets us into the runtime namespace.
                        worker.changed.notify_one();
                    }
                    Concerned::Some(Vec::new())
                }
                Ok(change) => Concerned::Some(tenants_of(&ctx.cache, &change)),
                Err(RecvError::Lagged(_)) => Concerned::All,
                Err(RecvError::Closed) => return,
            },
            poke = compilation_requests.recv() => match poke {
                Ok(uid) => Concerned::Some(vec![uid]),
                Err(RecvError::Lagged(_)) => Concerned::All,
                Err(RecvError::Closed) => return,
            },
            Some(ended) = tasks.join_next() => {
                match ended {
                    Ok(uid) => {
                        workers.remove(&uid);
                    }
                    // A worker that panicked is replaced with all others: nothing of it can be trusted.
                    Err(error) => {
                        tracing::error!(%error, "a publisher broke; all are started anew");
                        tasks.abort_all();
                        workers.clear();
                    }
                }
                Concerned::Some(Vec::new())
            }
        };
    }
}

/// How a worker is woken.
#[derive(Clone)]
struct Wake {
    changed: Arc<Notify>,
    touched: Arc<AtomicBool>,
}

fn is_snapshot(labels: &labels::Labels) -> bool {
    labels.get(labels::COMPONENT).is_some_and(|component| component == snapshot::COMPONENT)
}

/// Which tenants are concerned by a change.
enum Concerned {
    All,
    Some(Vec<String>),
}

fn tenants_of(cache: &Cache, change: &Change) -> Vec<String> {
    let named = |name: &str| {
        let changed = cache.tenants.find(|tenant| tenant.name_any() == name);
        // A tenant that comes or goes can also free or take the namespaces of others.
        let Some(changed) = changed else { return all(cache, |_| true) };
        let namespaces = [changed.spec.namespace.name.clone(), changed.runtime_namespace()];
        all(cache, |tenant| {
            tenant.name_any() == name
                || namespaces.contains(&tenant.spec.namespace.name)
                || namespaces.contains(&tenant.runtime_namespace())
        })
    };
    let of_namespace = |namespace: &str| all(cache, |tenant| tenant.spec.namespace.name == namespace);
    match change {
        Change::Tenant(name) => named(name),
        Change::Server(namespace, _)
        | Change::Scope(namespace, _)
        | Change::Principal(namespace, _)
        | Change::Budget(namespace, _) => of_namespace(namespace),
        Change::Namespace(namespace) => {
            all(cache, |tenant| tenant.spec.namespace.name == *namespace || tenant.runtime_namespace() == *namespace)
        }
        Change::Service(labels) => labels.get(labels::TENANT_UID).cloned().into_iter().collect(),
        Change::Owned(_) => Vec::new(),
    }
}

fn all(cache: &Cache, wanted: impl Fn(&mcp_fleet_crds::MCPTenant) -> bool) -> Vec<String> {
    cache.tenants.state().iter().filter(|tenant| wanted(tenant)).filter_map(|tenant| tenant.uid()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_lists_do_not_let_policies_grow_stale() {
        assert_eq!(pause_after(Duration::ZERO), Duration::from_secs(2));
        assert_eq!(pause_after(Duration::from_millis(300)), Duration::from_secs(3));
        assert_eq!(pause_after(Duration::MAX), Duration::from_secs(4));
    }
}
