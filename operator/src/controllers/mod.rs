//! The controllers of the five kinds, and the loop that they share: it queues the objects that a change affects,
//! reconciles each of them one at a time, and retries failures with growing pauses.
//!
//! Every reconcile has the same five steps: dereference (read what the object refers to), validate (pure), desired
//! (pure), apply, status. Start at [`tenant`].

mod action;
mod apply;
pub(crate) mod budget;
mod enforcement;
mod error;
mod finalizer;
mod identity;
mod manifests;
mod outcome;
pub(crate) mod principal;
mod queue;
pub(crate) mod scope;
mod secret_copy;
pub(crate) mod server;
mod spending;
mod status;
mod teardown;
pub(crate) mod tenant;
pub(crate) mod unreadable;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use mcp_fleet_core::guard::GuardedKind;
use mcp_fleet_core::retry::{Backoff, jittered};
use mcp_fleet_core::shared_state::StateChange;
use mcp_fleet_core::shared_state::verdict::Kind;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::context::Context;
use crate::kubernetes::cache::{Cache, Change, Readable, references};
use crate::tasks::ended;

use action::Action;
use error::ReconcileError;
use queue::{FairQueue, Item};

pub(crate) use apply::Declared;
pub(crate) use manifests::PEER_PORT_NAME;
pub(crate) use tenant::gateway_deployment;

/// Objects of a kind that are reconciled at a time.
const CONCURRENCY: usize = 16;
/// Objects of a kind that are reconciled for one tenant at a time. The rest is for others, should API calls for one hang.
const CONCURRENCY_OF_TENANT: usize = 12;
/// First pause after a failure, and the longest; jitter at most doubles them.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(15));
/// Pause after a conflict: the cache needs a moment to catch up.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
/// How often an object is reconciled although nothing changed. A resync costs reads, but no writes.
const RESYNC_INTERVAL: Duration = Duration::from_mins(15);

/// The controller of one kind.
pub(crate) trait Controller: Send + Sync + 'static {
    /// The kind that it reconciles.
    type Kind: GuardedKind;
    /// Name in logs and metrics.
    const NAME: &'static str;

    /// Returns the store of the kind.
    fn store(cache: &Cache) -> Readable<Self::Kind>;

    /// Returns the objects that a change in the cluster affects.
    fn affected_by_change(cache: &Cache, change: &Change) -> Vec<ObjectRef<Self::Kind>>;

    /// Returns the objects that a change of the compiler's or the control server's results affects.
    fn affected_by_state(ctx: &Context, change: &StateChange) -> Vec<ObjectRef<Self::Kind>>;

    /// Brings the cluster in line with one object and writes the object's status.
    fn reconcile(
        object: Arc<Self::Kind>,
        ctx: Arc<Context>,
    ) -> impl Future<Output = Result<Action, ReconcileError>> + Send;
}

/// The objects of a kind that are to be reconciled.
type Queue<K> = FairQueue<ObjectRef<K>>;
/// The reconciles that are running.
type Reconciles<K> = JoinSet<(ObjectRef<K>, Result<Action, ReconcileError>)>;

/// The backoffs of the objects whose last reconcile failed.
type Backoffs<K> = HashMap<ObjectRef<K>, Backoff>;

impl<K: Resource<DynamicType = ()>> Item for ObjectRef<K> {
    fn lane(&self) -> &str {
        self.namespace.as_deref().unwrap_or(&self.name)
    }
}

/// Runs a controller. Never returns; dropping it stops the controller.
pub(crate) async fn run<C: Controller>(ctx: Arc<Context>) {
    let (mut changes, mut state_changes) = (ctx.cache.subscribe(), ctx.shared_state.changes());
    let all = || references(C::store(&ctx.cache).state());
    let mut queue = Queue::<C::Kind>::new(CONCURRENCY_OF_TENANT);
    let mut backoffs = Backoffs::new();
    let mut running = JoinSet::new();
    let mut affected = all();
    loop {
        for object in affected {
            queue.push(object);
        }
        affected = Vec::new();
        start_queued::<C>(&ctx, &mut queue, &mut backoffs, &mut running);
        tokio::select! {
            Some(joined) = running.join_next() => {
                if let Some((object, result)) = ended(joined) {
                    let pause = pause_until_next(&mut backoffs, &object, result);
                    queue.finish(object, pause.map(|pause| Instant::now() + pause));
                }
            }
            change = changes.recv() => match change {
                Ok(change) => affected = C::affected_by_change(&ctx.cache, &change),
                Err(RecvError::Lagged(_)) => affected = all(),
                Err(RecvError::Closed) => return,
            },
            change = state_changes.recv() => match change {
                Ok(change) => affected = C::affected_by_state(&ctx, &change),
                Err(RecvError::Lagged(_)) => affected = all(),
                Err(RecvError::Closed) => return,
            },
            () = due(queue.next_due()) => queue.push_due(Instant::now()),
        }
    }
}

/// Waits until a time; without one, forever.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Starts reconciles of queued objects, as many as may run at a time.
fn start_queued<C: Controller>(
    ctx: &Arc<Context>,
    queue: &mut Queue<C::Kind>,
    backoffs: &mut Backoffs<C::Kind>,
    running: &mut Reconciles<C::Kind>,
) {
    while running.len() < CONCURRENCY {
        let Some(reference) = queue.take() else { return };
        let Some(object) = C::store(&ctx.cache).get(&reference) else {
            backoffs.remove(&reference);
            queue.finish(reference, None);
            continue;
        };
        let ctx = Arc::clone(ctx);
        running.spawn(async move { (reference, reconcile::<C>(object, ctx).await) });
    }
}

/// Returns the pause before an object is reconciled again; none if that waits for a change.
fn pause_until_next<K: Resource<DynamicType = ()>>(
    backoffs: &mut Backoffs<K>,
    object: &ObjectRef<K>,
    result: Result<Action, ReconcileError>,
) -> Option<Duration> {
    match result {
        Ok(Action { requeue_after }) => {
            backoffs.remove(object);
            requeue_after
        }
        Err(error) => Some(pause_after(backoffs, object, &error)),
    }
}

/// Reconciles one object in a span that names it, and records how that went.
async fn reconcile<C: Controller>(object: Arc<C::Kind>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let span = tracing::info_span!(
        "reconcile",
        kind = C::NAME,
        namespace = object.namespace(),
        name = object.name_any(),
        generation = object.meta().generation,
    );
    let measured = async {
        let started = Instant::now();
        let result = C::reconcile(object, ctx.clone()).await;
        ctx.metrics.reconcile_seconds.with_label_values(&[C::NAME]).observe(started.elapsed().as_secs_f64());
        let label = if result.is_ok() { "ok" } else { "error" };
        ctx.metrics.reconciles.with_label_values(&[C::NAME, label]).inc();
        match &result {
            Err(error) if error.is_conflict() => {
                tracing::debug!("the object changed during the reconcile, which is repeated");
            }
            Err(error) => tracing::warn!(error = error.chain(), "failed to reconcile"),
            Ok(_) => {}
        }
        result
    };
    measured.instrument(span).await
}

/// Returns the pause before an object whose reconcile failed is reconciled again.
fn pause_after<K: Resource<DynamicType = ()>>(
    backoffs: &mut Backoffs<K>,
    object: &ObjectRef<K>,
    error: &ReconcileError,
) -> Duration {
    if error.is_conflict() {
        return jittered(CONFLICT_PAUSE);
    }
    let new = || Backoff::new(FAILURE_PAUSES.0, FAILURE_PAUSES.1);
    backoffs.entry(object.clone()).or_insert_with(new).next_pause()
}

/// Returns the objects of a kind of which the policy contains something else now, or which gateways enforce now.
fn affected_by_policy<K: GuardedKind>(
    ctx: &Context,
    store: &Readable<K>,
    kind: Kind,
    change: &StateChange,
) -> Vec<ObjectRef<K>> {
    match change {
        StateChange::Objects(objects) => {
            references(objects.get(&kind).into_iter().flatten().filter_map(|uid| store.with_uid(uid)))
        }
        StateChange::Unenforced(tenant_uid) => {
            let Some(tenant) = ctx.cache.tenant_by_uid(tenant_uid) else { return vec![] };
            let objects = store.in_namespace(&tenant.spec.namespace.name).into_iter();
            references(objects.filter(|object| {
                let meta = object.meta();
                let (uid, generation) = (meta.uid.as_deref().unwrap_or_default(), meta.generation.unwrap_or(0));
                !ctx.shared_state.is_enforced(tenant_uid, kind, uid, generation)
            }))
        }
        StateChange::Tenant(_) | StateChange::Spending(_) | StateChange::Rollout(_) => vec![],
    }
}

/// Reconciles the object again at the next resync, if nothing changes before.
fn resync() -> Action {
    Action::requeue(jittered(RESYNC_INTERVAL))
}

/// Reconciles the object again after `pause`, or after two resync intervals if that is sooner.
fn requeue_after(pause: Duration) -> Action {
    Action::requeue(pause.min(RESYNC_INTERVAL * 2))
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::MCPTenant;

    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let mut backoffs = Backoffs::new();
        let object = ObjectRef::<MCPTenant>::new("acme");
        let error = ReconcileError::Incomplete("uid");
        let pauses: Vec<_> = (0..20).map(|_| pause_after(&mut backoffs, &object, &error)).collect();
        assert!(pauses[0] < Duration::from_millis(300));
        assert!(pauses[5] > pauses[0]);
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)));
    }
}
