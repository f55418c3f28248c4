//! The threads that serve connections, each with a runtime of its own.
//!
//! A connection lives on one thread from its handshake to its end, and so does what it uses of the connections to tool
//! servers ([`lane`]): a call is never handed from thread to thread, and waking it costs no system call. Work that
//! belongs to no connection runs on the runtime that everything was started from.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::MissedTickBehavior;

/// Shorter than the deadline of any usual call.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The most threads, and how many sets of idle connections there are at most.
pub(crate) const MOST: usize = 8;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(MOST) };
}

/// Which of the `MOST + 1` sets of idle connections the calling thread uses; threads that are no worker share the last.
pub(crate) fn lane() -> usize {
    LANE.get()
}

/// The threads. They end with the process.
#[derive(Clone, Debug)]
pub struct Workers {
    workers: Arc<[Worker]>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// One more reference for each connection.
    connections: Arc<()>,
}

impl Workers {
    /// Starts one thread for each processor, eight at most: a gateway on a large node without a CPU limit needs no
    /// thread for each of its cores.
    pub fn start() -> std::io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(2, usize::from).min(MOST);
        let workers = (0..count).map(Worker::start).collect::<std::io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// Has a connection served by the thread that has the fewest. `serve` is called there, so that the connection's
    /// socket can belong to that thread's runtime.
    pub(crate) fn spawn<S>(&self, serve: impl FnOnce() -> S + Send + 'static)
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let connections = |worker: &&Worker| Arc::strong_count(&worker.connections);
        let Some(worker) = self.workers.iter().min_by_key(connections) else { return };
        let connection = Arc::clone(&worker.connections);
        worker.handle.spawn(async move {
            serve().await;
            drop(connection);
        });
    }
}

impl Worker {
    fn start(lane: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("worker-{lane}")).spawn(move || {
            LANE.set(lane);
            runtime.block_on(heartbeat());
        })?;
        Ok(Self { handle, connections: Arc::new(()) })
    }
}

/// Wakes the thread once a second, for ever. tokio wakes itself by a system call whenever a timer is set that is due
/// before all others; with a timer that is due sooner than any call's deadline, setting those costs nothing.
async fn heartbeat() {
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_stay_where_they_are() {
        let workers = Workers::start().unwrap();
        let (sender, mut lanes) = tokio::sync::mpsc::unbounded_channel();
        let count = workers.workers.len();
        for _ in 0..2 * count {
            let sender = sender.clone();
            workers.spawn(move || async move {
                let before = lane();
                tokio::task::yield_now().await;
                sender.send((before, lane())).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut seen = BTreeMap::new();
        for _ in 0..2 * count {
            let (before, after) = lanes.recv().await.unwrap();
            assert_eq!(before, after);
            *seen.entry(before).or_insert(0) += 1;
        }
        assert_eq!(seen, (0..count).map(|lane| (lane, 2)).collect());
        assert_eq!(lane(), MOST, "a thread that is no worker");
    }
}
