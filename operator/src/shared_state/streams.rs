//! Who is connected: one stream for each gateway pod; a newer one takes the place of an older.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use mcp_fleet_control::wire::FromOperator;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Where messages to a gateway go.
pub(crate) type Outbound = mpsc::Sender<Result<FromOperator, Status>>;

#[derive(Debug)]
struct Entry {
    number: u64,
    outbound: Outbound,
    replaced: CancellationToken,
}

/// The gateways that are connected, by the pod's UID.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    entries: Mutex<HashMap<String, Entry>>,
    numbers: AtomicU64,
}

/// One stream's place among the streams.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) number: u64,
    /// Cancelled when a newer stream of the same pod has come.
    pub(crate) replaced: CancellationToken,
}

impl Streams {
    /// Takes the place of a pod's stream.
    pub(crate) fn enter(&self, pod_uid: &str, outbound: Outbound) -> Place {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let replaced = CancellationToken::new();
        let entry = Entry { number, outbound, replaced: replaced.clone() };
        if let Some(before) = self.entries.lock().insert(pod_uid.to_owned(), entry) {
            before.replaced.cancel();
        }
        Place { number, replaced }
    }

    /// Gives the place back. Answers whether it was still this stream's.
    pub(crate) fn leave(&self, pod_uid: &str, number: u64) -> bool {
        let mut entries = self.entries.lock();
        let ours = entries.get(pod_uid).is_some_and(|entry| entry.number == number);
        if ours {
            entries.remove(pod_uid);
        }
        ours
    }

    /// Whether a pod is connected.
    pub(crate) fn has(&self, pod_uid: &str) -> bool {
        self.entries.lock().contains_key(pod_uid)
    }

    /// Sends a message to a pod, if it is connected and keeps up.
    pub(crate) fn send(&self, pod_uid: &str, message: FromOperator) {
        if let Some(entry) = self.entries.lock().get(pod_uid) {
            // It asks again when it matters.
            let _ = entry.outbound.try_send(Ok(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_stream_of_a_pod_ends_the_older_one_and_outlives_it() {
        let streams = Streams::default();
        let older = streams.enter("p", mpsc::channel(1).0);
        let newer = streams.enter("p", mpsc::channel(1).0);
        assert!(older.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        assert!(!streams.leave("p", older.number));
        assert!(streams.has("p"));
        assert!(streams.leave("p", newer.number));
        assert!(!streams.has("p"));
    }
}
