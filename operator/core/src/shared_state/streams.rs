//! The control streams of connected gateways: one per pod. A newer stream of a pod replaces an older one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use mcp_fleet_control::wire::FromOperator;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Sender of messages to a gateway.
pub type Outbound = mpsc::Sender<Result<FromOperator, Status>>;

#[derive(Debug)]
struct Entry {
    number: u64,
    outbound: Outbound,
    replaced: CancellationToken,
}

/// Control streams, by UID of the pod.
#[derive(Debug, Default)]
pub struct Streams {
    entries: Mutex<HashMap<String, Entry>>,
    numbers: AtomicU64,
}

/// Registration of one stream.
#[derive(Debug)]
pub struct Registration {
    pub number: u64,
    /// Cancelled when a newer stream of the same pod is registered.
    pub replaced: CancellationToken,
}

impl Streams {
    /// Registers a stream of a pod, and cancels an older one.
    pub fn register(&self, pod_uid: &str, outbound: Outbound) -> Registration {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let replaced = CancellationToken::new();
        let entry = Entry { number, outbound, replaced: replaced.clone() };
        if let Some(older) = self.entries.lock().insert(pod_uid.to_owned(), entry) {
            older.replaced.cancel();
        }
        Registration { number, replaced }
    }

    /// Removes a stream. Returns whether it was still registered, that is, no newer one had replaced it.
    pub fn deregister(&self, pod_uid: &str, number: u64) -> bool {
        let mut entries = self.entries.lock();
        let registered = entries.get(pod_uid).is_some_and(|entry| entry.number == number);
        if registered {
            entries.remove(pod_uid);
        }
        registered
    }

    /// Returns whether a pod is connected.
    pub fn is_connected(&self, pod_uid: &str) -> bool {
        self.entries.lock().contains_key(pod_uid)
    }

    /// Sends a message to a pod, unless it is not connected or its queue is full.
    pub fn send(&self, pod_uid: &str, message: FromOperator) {
        if let Some(entry) = self.entries.lock().get(pod_uid) {
            // A lost recall is harmless: the next refused lease request sends it again.
            let _ = entry.outbound.try_send(Ok(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_stream_of_a_pod_replaces_the_older_one() {
        let streams = Streams::default();
        let older = streams.register("p", mpsc::channel(1).0);
        let newer = streams.register("p", mpsc::channel(1).0);
        assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        assert!(!streams.deregister("p", older.number));
        assert!(streams.is_connected("p"));
        assert!(streams.deregister("p", newer.number));
        assert!(!streams.is_connected("p"));
    }
}
