//! The controllers of the five kinds, and the loop that they share: it queues the objects that a change affects,
//! reconciles each of them one at a time, and retries failures with growing pauses.
//!
//! Every reconcile has the same five steps: dereference (read what the object refers to), validate (pure), desired
//! (pure), apply, status. Start at [`tenant`].

mod apply;
pub(crate) mod budget;
mod enforcement;
mod error;
mod finalizer;
mod identity;
mod manifests;
mod outcome;
pub(crate) mod principal;
pub(crate) mod scope;
pub(crate) mod server;
mod status;
mod teardown;
pub(crate) mod tenant;
pub(crate) mod unreadable;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tracing::Instrument as _;

pub(crate) use apply::Declared;
pub(crate) use tenant::gateway_deployment;

use crate::context::Context;
use crate::kubernetes::cache::{Cache, Change, Stored};
use crate::retry::{Backoff, jittered};
use crate::shared_state::StateChange;
use crate::shared_state::verdict::Kind;
use error::ReconcileError;

/// Objects of a kind that are reconciled at a time.
const CONCURRENCY: u16 = 8;
/// First pause after a failure, and the longest; jitter at most doubles them.
const FAILURE_PAUSES: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(15));
/// Pause after a conflict: the cache needs a moment to catch up.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
/// How often an object is reconciled although nothing changed. A resync costs reads, but no writes.
const RESYNC_INTERVAL: Duration = Duration::from_mins(15);

/// The controller of one kind.
pub(crate) trait Controller: Send + Sync + 'static {
    /// The kind that it reconciles.
    type Kind: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static;
    /// Name in logs and metrics.
    const NAME: &'static str;

    /// Returns the store of the kind.
    fn store(cache: &Cache) -> Store<Self::Kind>;

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

/// The backoffs of the objects whose last reconcile failed.
type Backoffs<K> = Mutex<HashMap<ObjectRef<K>, Backoff>>;

/// Runs a controller. Never returns; dropping it stops the controller.
pub(crate) async fn run<C: Controller>(ctx: Arc<Context>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queue = futures::stream::unfold(receiver, |mut receiver| async move {
        let next: ObjectRef<C::Kind> = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(next), receiver))
    });
    let backoffs: Arc<Backoffs<C::Kind>> = Arc::default();
    let succeeded = backoffs.clone();
    let work = applier(
        move |object: Arc<C::Kind>, ctx: Arc<Context>| {
            let (name, succeeded) = (ObjectRef::from_obj(&*object), succeeded.clone());
            let result = reconcile::<C>(object, ctx).map(move |result| {
                if result.is_ok() {
                    succeeded.lock().remove(&name);
                }
                result
            });
            result.boxed()
        },
        move |object, error, _| Action::requeue(pause_after(&backoffs, &ObjectRef::from_obj(&*object), error)),
        ctx.clone(),
        C::store(&ctx.cache),
        queue,
        Config::default().concurrency(CONCURRENCY),
    );
    tokio::select! {
        () = enqueue_affected::<C>(&ctx, &sender) => {}
        () = work.for_each(|_| async {}) => {}
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

/// Queues all objects, and then those that changes affect.
async fn enqueue_affected<C: Controller>(ctx: &Context, queue: &mpsc::UnboundedSender<ObjectRef<C::Kind>>) {
    let (mut changes, mut state_changes) = (ctx.cache.subscribe(), ctx.shared_state.changes());
    let all = || C::store(&ctx.cache).state().iter().map(|object| ObjectRef::from_obj(&**object)).collect();
    let mut affected: Vec<ObjectRef<C::Kind>> = all();
    loop {
        for object in affected {
            if queue.send(object).is_err() {
                return;
            }
        }
        affected = tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => C::affected_by_change(&ctx.cache, &change),
                Err(RecvError::Lagged(_)) => all(),
                Err(RecvError::Closed) => return,
            },
            change = state_changes.recv() => match change {
                Ok(change) => C::affected_by_state(ctx, &change),
                Err(RecvError::Lagged(_)) => all(),
                Err(RecvError::Closed) => return,
            },
        };
    }
}

/// Returns the pause before an object whose reconcile failed is reconciled again.
fn pause_after<K: Resource<DynamicType = ()>>(
    backoffs: &Backoffs<K>,
    object: &ObjectRef<K>,
    error: &ReconcileError,
) -> Duration {
    if error.is_conflict() {
        return jittered(CONFLICT_PAUSE);
    }
    let new = || Backoff::new(FAILURE_PAUSES.0, FAILURE_PAUSES.1);
    backoffs.lock().entry(object.clone()).or_insert_with(new).next_pause()
}

/// Returns the objects of a kind of which the policy contains something else now, or which gateways enforce now.
fn affected_by_policy<K: Stored>(
    ctx: &Context,
    store: &Store<K>,
    kind: Kind,
    change: &StateChange,
) -> Vec<ObjectRef<K>> {
    let found = match change {
        StateChange::Objects(objects) => {
            let Some(uids) = objects.get(&kind) else { return vec![] };
            store.state_filter(|object| object.meta().uid.as_ref().is_some_and(|uid| uids.contains(uid)))
        }
        StateChange::Unenforced(tenant_uid) => {
            let Some(tenant) = ctx.cache.tenant_by_uid(tenant_uid) else { return vec![] };
            store.state_filter(|object| {
                let meta = object.meta();
                let (uid, generation) = (meta.uid.as_deref().unwrap_or_default(), meta.generation.unwrap_or(0));
                meta.namespace.as_ref() == Some(&tenant.spec.namespace.name)
                    && !ctx.shared_state.is_enforced(tenant_uid, kind, uid, generation)
            })
        }
        StateChange::Tenant(_) | StateChange::Spending(_) | StateChange::Rollout(_) => return vec![],
    };
    found.iter().map(|object| ObjectRef::from_obj(&**object)).collect()
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
        let backoffs = Mutex::default();
        let object = ObjectRef::<MCPTenant>::new("acme");
        let error = ReconcileError::Incomplete("uid");
        let pauses: Vec<_> = (0..20).map(|_| pause_after(&backoffs, &object, &error)).collect();
        assert!(pauses[0] < Duration::from_millis(300));
        assert!(pauses[5] > pauses[0]);
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)));
    }
}
