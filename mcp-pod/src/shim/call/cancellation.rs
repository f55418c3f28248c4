//! Calls in flight by their ULID, so that a cancellation can find them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::super::server::Needed;

/// The calls in flight.
#[derive(Debug, Default)]
pub(in crate::shim) struct CallsInFlight(Mutex<HashMap<String, CancellationToken>>);

/// One call in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct CallInFlight {
    calls: Arc<CallsInFlight>,
    call: String,
    /// Cancelled when the call is.
    pub(super) cancelled: CancellationToken,
    /// Keeps the server from being stopped.
    pub(super) needed: Option<Needed>,
}

impl CallsInFlight {
    /// Adds a call.
    pub(super) fn enter(self: &Arc<Self>, call: String) -> CallInFlight {
        let cancelled = self.0.lock().entry(call.clone()).or_default().clone();
        CallInFlight { calls: Arc::clone(self), call, cancelled, needed: None }
    }

    /// Cancels a call. Returns whether it is in flight.
    pub(in crate::shim) fn cancel(&self, call: &str) -> bool {
        self.0.lock().get(call).map(CancellationToken::cancel).is_some()
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.calls.0.lock().remove(&self.call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_can_be_cancelled_while_it_is_in_flight() {
        let calls = Arc::new(CallsInFlight::default());
        let (one, two) = (calls.enter("one".to_owned()), calls.enter("two".to_owned()));
        assert!(calls.cancel("one") && calls.cancel("one") && !calls.cancel("three"));
        assert!(one.cancelled.is_cancelled() && !two.cancelled.is_cancelled());
        drop(one);
        assert!(!calls.cancel("one") && calls.cancel("two"));
    }
}
