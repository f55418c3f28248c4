//! When an object is reconciled next.

use std::time::Duration;

/// When an object is reconciled next, unless a change affects it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    /// The pause before it; none if only a change causes another reconcile.
    pub(super) requeue_after: Option<Duration>,
}

impl Action {
    /// Reconciles the object again after a pause.
    pub(crate) const fn requeue(pause: Duration) -> Self {
        Self { requeue_after: Some(pause) }
    }

    /// Reconciles the object again after a pause at the latest, if there is one.
    #[must_use]
    pub(crate) fn no_later_than(self, pause: Option<Duration>) -> Self {
        Self { requeue_after: self.requeue_after.into_iter().chain(pause).min() }
    }

    /// Reconciles the object again when a change affects it.
    pub(crate) const fn await_change() -> Self {
        Self { requeue_after: None }
    }
}
