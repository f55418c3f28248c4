//! The finalizer of kinds whose objects live in other namespaces, where Kubernetes cannot delete them together with
//! their owner.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kube::Api;
use kube::Resource;
use kube::runtime::controller;
use kube::runtime::finalizer::{self, Event};
use mcp_fleet_core::labels::FINALIZER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::action::Action;
use super::error::ReconcileError;

/// How far the teardown of an object has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Teardown {
    /// Nothing is left; the object may go.
    Done,
    /// Something is left. The teardown continues after this pause.
    Unfinished(Duration),
}

/// Why the finalizer stays on an object, or why the object could not be reconciled.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error(transparent)]
    Failed(ReconcileError),
    #[error("the teardown is not finished")]
    Unfinished(Duration),
}

/// Reconciles an object that holds the finalizer, and tears down one that is being deleted. An object without the
/// finalizer only gets it: that change triggers the next reconcile.
pub(crate) async fn with_finalizer<K, R, T>(
    api: &Api<K>,
    object: Arc<K>,
    reconcile: impl FnOnce(Arc<K>) -> R,
    tear_down: impl FnOnce(Arc<K>) -> T,
) -> Result<Action, ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    R: Future<Output = Result<Action, ReconcileError>>,
    T: Future<Output = Result<Teardown, ReconcileError>>,
{
    let next = OnceLock::new();
    let handle = async |event| match event {
        Event::Apply(object) => {
            let action = reconcile(object).await.map_err(Interruption::Failed)?;
            let _ = next.set(action);
            Ok(controller::Action::await_change())
        }
        Event::Cleanup(object) => match tear_down(object).await.map_err(Interruption::Failed)? {
            Teardown::Done => Ok(controller::Action::await_change()),
            Teardown::Unfinished(pause) => Err(Interruption::Unfinished(pause)),
        },
    };
    match finalizer::finalizer(api, FINALIZER, object, handle).await {
        Ok(_) => Ok(next.into_inner().unwrap_or(Action::await_change())),
        Err(finalizer::Error::ApplyFailed(interruption) | finalizer::Error::CleanupFailed(interruption)) => {
            match interruption {
                Interruption::Failed(error) => Err(error),
                Interruption::Unfinished(pause) => Ok(Action::requeue(pause)),
            }
        }
        // Someone else took the finalizer off, and the object is gone.
        Err(finalizer::Error::RemoveFinalizer(kube::Error::Api(status))) if status.is_not_found() => {
            Ok(Action::await_change())
        }
        // The API server removed it, and only its answer cannot be read: the object was torn down without the fields that
        // cannot be read.
        Err(finalizer::Error::RemoveFinalizer(kube::Error::SerdeError(_))) => Ok(Action::await_change()),
        Err(finalizer::Error::AddFinalizer(source) | finalizer::Error::RemoveFinalizer(source)) => {
            Err(ReconcileError::Finalizer(source))
        }
        Err(finalizer::Error::UnnamedObject | finalizer::Error::InvalidFinalizer) => {
            Err(ReconcileError::Incomplete("metadata.name"))
        }
    }
}
