//! The loop that all controllers share: changes go in, objects are reconciled one at a time each, failures are tried
//! again with growing, jittered pauses.

pub(crate) mod budget;
pub(crate) mod error;
mod manifests;
pub(crate) mod principal;
pub(crate) mod scope;
pub(crate) mod server;
mod status;
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

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::kubernetes::cache::{Cache, Change};
use crate::retry::jittered;
use crate::shared_state::StateChange;

/// How many objects of a kind are reconciled at a time.
const CONCURRENCY: u16 = 8;
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often an object is looked at although nothing changed; it costs reads, no writes.
const RESYNC: Duration = Duration::from_mins(15);

/// One controller.
pub(crate) trait Controller: Send + Sync + 'static {
    /// The kind that it reconciles.
    type Kind: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static;
    /// Its name, for logs and metrics.
    const NAME: &'static str;

    /// The store of its kind.
    fn store(cache: &Cache) -> Store<Self::Kind>;

    /// The objects that a change concerns.
    fn concerned(cache: &Cache, change: &Change) -> Vec<ObjectRef<Self::Kind>>;

    /// The objects that news of the compiler or the stream concern.
    fn told(cache: &Cache, change: &StateChange) -> Vec<ObjectRef<Self::Kind>>;

    /// Brings one object to what it says. Answers after how long to look again, if sooner than usual.
    fn reconcile(
        object: Arc<Self::Kind>,
        ctx: Arc<Context>,
    ) -> impl Future<Output = Result<Option<Duration>, ReconcileError>> + Send;
}

/// Runs a controller; it never ends by itself, and stops where it is when dropped.
pub(crate) async fn run<C: Controller>(ctx: Arc<Context>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queue = futures::stream::unfold(receiver, |mut receiver| async move {
        let next: ObjectRef<C::Kind> = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(next), receiver))
    });
    let failures: Arc<Mutex<HashMap<ObjectRef<C::Kind>, u32>>> = Arc::default();
    let counted = failures.clone();
    let work = applier(
        move |object: Arc<C::Kind>, ctx: Arc<Context>| observed::<C>(object, ctx, counted.clone()).boxed(),
        move |object, error, _| Action::requeue(pause_after(&failures, &ObjectRef::from_obj(&*object), error)),
        ctx.clone(),
        C::store(&ctx.cache),
        queue,
        Config::default().concurrency(CONCURRENCY),
    );
    tokio::select! {
        () = feed::<C>(&ctx, &sender) => {}
        () = work.for_each(|_| async {}) => {}
    }
}

async fn observed<C: Controller>(
    object: Arc<C::Kind>,
    ctx: Arc<Context>,
    failures: Arc<Mutex<HashMap<ObjectRef<C::Kind>, u32>>>,
) -> Result<Action, ReconcileError> {
    let started = Instant::now();
    let outcome = C::reconcile(object.clone(), ctx.clone()).await;
    ctx.metrics.reconcile_seconds.with_label_values(&[C::NAME]).observe(started.elapsed().as_secs_f64());
    let label = if outcome.is_ok() { "ok" } else { "error" };
    ctx.metrics.reconciles.with_label_values(&[C::NAME, label]).inc();
    match outcome {
        Ok(after) => {
            failures.lock().remove(&ObjectRef::from_obj(&*object));
            Ok(Action::requeue(after.unwrap_or_else(|| jittered(RESYNC)).min(RESYNC * 2)))
        }
        Err(error) => {
            let name = object.name_any();
            if error.is_conflict() {
                tracing::debug!(controller = C::NAME, name, "the object changed under the reconcile; looking again");
            } else {
                tracing::warn!(controller = C::NAME, name, error = error.chain(), "failed to reconcile");
            }
            Err(error)
        }
    }
}

async fn feed<C: Controller>(ctx: &Context, queue: &mpsc::UnboundedSender<ObjectRef<C::Kind>>) {
    let (mut changes, mut news) = (ctx.cache.subscribe(), ctx.shared_state.changes());
    let everything = || C::store(&ctx.cache).state().iter().map(|object| ObjectRef::from_obj(&**object)).collect();
    let mut next: Vec<ObjectRef<C::Kind>> = everything();
    loop {
        for object in next {
            if queue.send(object).is_err() {
                return;
            }
        }
        next = tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => C::concerned(&ctx.cache, &change),
                Err(RecvError::Lagged(_)) => everything(),
                Err(RecvError::Closed) => return,
            },
            told = news.recv() => match told {
                Ok(told) => C::told(&ctx.cache, &told),
                Err(RecvError::Lagged(_)) => everything(),
                Err(RecvError::Closed) => return,
            },
        };
    }
}

fn pause_after<K: Resource<DynamicType = ()>>(
    failures: &Mutex<HashMap<ObjectRef<K>, u32>>,
    object: &ObjectRef<K>,
    error: &ReconcileError,
) -> Duration {
    if error.is_conflict() {
        return jittered(PAUSES.0 / 2);
    }
    let mut failures = failures.lock();
    let count = failures.entry(object.clone()).or_insert(0);
    let pause = PAUSES.0.saturating_mul(1 << (*count).min(16)).min(PAUSES.1);
    *count = count.saturating_add(1);
    jittered(pause)
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::MCPTenant;

    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let failures = Mutex::default();
        let object = ObjectRef::<MCPTenant>::new("acme");
        let error = ReconcileError::Incomplete("uid");
        let pauses: Vec<_> = (0..20).map(|_| pause_after(&failures, &object, &error)).collect();
        assert!(pauses[0] < Duration::from_millis(300));
        assert!(pauses[5] > pauses[0]);
        assert!(pauses.iter().all(|pause| *pause <= PAUSES.1 * 5 / 4));
    }
}
