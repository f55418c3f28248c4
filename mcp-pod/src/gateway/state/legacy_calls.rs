//! Legacy calls in flight, so that `notifications/cancelled` can find them.
//!
//! From 2026-07-28 on, clients cancel by closing the connection.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::gateway::request::Id;

/// A legacy session of one principal: the scope in which request ids are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LegacySession(u64);

/// Legacy calls in flight, by session and request id.
#[derive(Debug, Default)]
pub(crate) struct LegacyCalls {
    calls: Mutex<Calls>,
    hasher: foldhash::quality::RandomState,
}

#[derive(Debug, Default)]
struct Calls {
    by_id: HashMap<(LegacySession, Id), (u64, oneshot::Sender<()>), foldhash::fast::RandomState>,
    number: u64,
}

/// Entry of one call, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cancellable {
    legacy_calls: Arc<LegacyCalls>,
    key: (LegacySession, Id),
    number: u64,
    /// `None` once the call can no longer be cancelled.
    cancelled: Option<oneshot::Receiver<()>>,
}

impl LegacyCalls {
    /// Returns the session with that id. Ids are sealed, so clients cannot choose two with the same hash.
    pub(crate) fn session(&self, principal_uid: &str, id: &[u8]) -> LegacySession {
        LegacySession(self.hasher.hash_one((principal_uid, id)))
    }

    /// Adds a call.
    pub(crate) fn enter(self: &Arc<Self>, session: LegacySession, id: Id) -> Cancellable {
        let (sender, cancelled) = oneshot::channel();
        let key = (session, id);
        let mut calls = self.calls.lock();
        calls.number += 1;
        let number = calls.number;
        // A client that uses an id for two calls at a time can cancel only the later one.
        calls.by_id.insert(key.clone(), (number, sender));
        drop(calls);
        Cancellable { legacy_calls: Arc::clone(self), key, number, cancelled: Some(cancelled) }
    }

    /// Cancels a call, if it is in flight.
    pub(crate) fn cancel(&self, session: LegacySession, id: Id) {
        if let Some((_, sender)) = self.calls.lock().by_id.remove(&(session, id)) {
            // The call may have ended at this very moment.
            let _ = sender.send(());
        }
    }
}

impl Cancellable {
    /// Waits until the call is cancelled, or forever.
    pub(crate) async fn cancelled(&mut self) {
        if let Some(cancelled) = &mut self.cancelled {
            let received = cancelled.await;
            self.cancelled = None;
            if received.is_ok() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        let mut calls = self.legacy_calls.calls.lock();
        if calls.by_id.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            calls.by_id.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt as _;
    use mcp_fleet_policy::json::Value;

    use super::*;

    fn id(number: i64) -> Id {
        Id::from_value(&Value::Integer(number)).unwrap()
    }

    #[test]
    fn a_call_is_cancelled_by_its_session_and_by_no_other() {
        let legacy_calls = Arc::new(LegacyCalls::default());
        let (mine, other) = (legacy_calls.session("coder", b"one"), legacy_calls.session("coder", b"two"));
        let mut call = legacy_calls.enter(mine, id(1));
        legacy_calls.cancel(other, id(1));
        legacy_calls.cancel(mine, id(2));
        assert!(call.cancelled().now_or_never().is_none());
        legacy_calls.cancel(mine, id(1));
        assert!(call.cancelled().now_or_never().is_some());
    }

    #[test]
    fn a_call_whose_id_is_used_again_can_be_asked_again() {
        let legacy_calls = Arc::new(LegacyCalls::default());
        let session = legacy_calls.session("coder", b"one");
        let mut first = legacy_calls.enter(session, id(1));
        let mut second = legacy_calls.enter(session, id(1));
        for _ in 0..2 {
            assert!(first.cancelled().now_or_never().is_none());
        }
        legacy_calls.cancel(session, id(1));
        assert!(second.cancelled().now_or_never().is_some());
    }

    #[test]
    fn calls_are_removed_when_they_end() {
        let legacy_calls = Arc::new(LegacyCalls::default());
        let session = legacy_calls.session("coder", b"one");
        let first = legacy_calls.enter(session, id(1));
        let second = legacy_calls.enter(session, id(1));
        drop(first);
        assert_eq!(legacy_calls.calls.lock().by_id.len(), 1);
        drop(second);
        assert_eq!(legacy_calls.calls.lock().by_id.len(), 0);
    }
}
