//! How a reconcile ends, the same for all kinds.

use std::time::Duration;

use mcp_fleet_core::retry::jittered;
use mcp_fleet_crds::condition::ConditionReason as Reason;

use super::action::Action;
use super::error::ReconcileError;
use super::status::Summary;
use super::{requeue_after, resync};

/// How soon a rejected object is validated again where no watch reports the change that it waits for.
const RECHECK_PAUSE: Duration = Duration::from_secs(30);

/// How the reconcile of an object ended. `A` is what its kind knows after the apply step.
#[derive(Debug)]
pub(crate) enum Outcome<A> {
    /// The object was accepted, and what it declares was applied.
    Applied(A),
    /// The object was not accepted. What was applied for it before stays.
    Rejected(Rejection),
    /// The apply step failed. It is retried.
    Failed(ReconcileError),
    /// The object is being deleted; the text says what the teardown waits for.
    Deleting(&'static str),
}

/// Why an object was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Reason of the conditions.
    pub reason: Reason,
    /// Message of the conditions: what is wrong and what to do.
    pub message: String,
    /// What has to happen before the object can be accepted.
    pub until: Until,
}

/// What has to happen before a rejected object can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Someone changes the object, or another one that is watched.
    Changed,
    /// Someone changes an object that is not watched.
    UnwatchedChanged,
    /// The operator finishes work that is under way.
    Prepared,
}

impl<A> Outcome<A> {
    /// Returns the outcome of the apply step. A conflict is an error: the object is reconciled again in a moment, and a
    /// status written now would be outdated.
    pub(crate) fn of(applied: Result<A, ReconcileError>) -> Result<Self, ReconcileError> {
        match applied {
            Ok(applied) => Ok(Self::Applied(applied)),
            Err(error) if error.is_conflict() => Err(error),
            Err(error) => Ok(Self::Failed(error)),
        }
    }

    /// Returns what was applied, or the summary of an outcome in which nothing was.
    pub(crate) fn applied(&self) -> Result<&A, Summary> {
        match self {
            Self::Applied(applied) => Ok(applied),
            Self::Rejected(Rejection { reason, message, until: Until::Prepared }) => {
                Err(Summary::Reconciling(*reason, message.clone()))
            }
            Self::Rejected(Rejection { reason, message, .. }) => Err(Summary::Stalled(*reason, message.clone())),
            Self::Failed(error) if error.is_permanent() => Err(Summary::Stalled(Reason::Failed, error.chain())),
            Self::Failed(error) => Err(Summary::Reconciling(Reason::Failed, error.chain())),
            Self::Deleting(step) => Err(Summary::Reconciling(Reason::Terminating, (*step).to_owned())),
        }
    }

    /// Returns why the object was not accepted.
    pub(crate) fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// Returns when the object is reconciled next. A failed apply step is an error, so that it is retried.
    pub(crate) fn next(self) -> Result<Action, ReconcileError> {
        match self {
            Self::Failed(error) => Err(error),
            Self::Rejected(Rejection { until: Until::UnwatchedChanged | Until::Prepared, .. }) => {
                Ok(requeue_after(jittered(RECHECK_PAUSE)))
            }
            Self::Applied(_) | Self::Rejected(_) | Self::Deleting(_) => Ok(resync()),
        }
    }
}
