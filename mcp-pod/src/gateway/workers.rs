//! The threads that serve connections, each with its own single-threaded runtime.
//!
//! A connection stays on one thread from its handshake to its end, and its calls use only that thread's connections to
//! tool servers ([`worker_index`]). So a call never moves between threads, and waking it costs no system call. Work
//! that belongs to no connection runs on the main runtime.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::MissedTickBehavior;

/// Period of the heartbeat: shorter than the timeout of a typical call.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
/// Largest number of worker threads.
pub(crate) const MAX_WORKERS: usize = 8;

thread_local! {
    static WORKER_INDEX: Cell<usize> = const { Cell::new(MAX_WORKERS) };
}

/// Returns the index of the calling worker thread, or [`MAX_WORKERS`] on any other thread.
pub(crate) fn worker_index() -> usize {
    WORKER_INDEX.get()
}

/// The worker threads, which run until the process ends.
#[derive(Clone, Debug)]
pub struct Workers {
    workers: Arc<[Worker]>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Counts the thread's connections: each has a reference.
    connections: Arc<()>,
}

impl Workers {
    /// Starts one thread per processor, at most [`MAX_WORKERS`]: on a large node without a CPU limit, a gateway needs
    /// no thread for every core.
    pub fn start() -> std::io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(2, usize::from).min(MAX_WORKERS);
        let workers = (0..count).map(Worker::start).collect::<std::io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// Serves a connection on the thread with the fewest connections. `serve` is called on that thread, so that the
    /// connection's socket belongs to its runtime.
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
    fn start(index: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            WORKER_INDEX.set(index);
            runtime.block_on(heartbeat());
        })?;
        Ok(Self { handle, connections: Arc::new(()) })
    }
}

/// Wakes the thread once a second, indefinitely. tokio wakes itself with a system call whenever a new timer is due
/// before all others. The heartbeat is due before the deadline of a typical call, so setting a deadline costs none.
async fn heartbeat() {
    let mut ticks = tokio::time::interval(HEARTBEAT_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_stay_on_their_thread() {
        let workers = Workers::start().unwrap();
        let (sender, mut indexes) = tokio::sync::mpsc::unbounded_channel();
        let count = workers.workers.len();
        for _ in 0..2 * count {
            let sender = sender.clone();
            workers.spawn(move || async move {
                let before = worker_index();
                tokio::task::yield_now().await;
                sender.send((before, worker_index())).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut seen = BTreeMap::new();
        for _ in 0..2 * count {
            let (before, after) = indexes.recv().await.unwrap();
            assert_eq!(before, after);
            *seen.entry(before).or_insert(0) += 1;
        }
        assert_eq!(seen, (0..count).map(|index| (index, 2)).collect());
        assert_eq!(worker_index(), MAX_WORKERS, "a thread that is not a worker");
    }
}
