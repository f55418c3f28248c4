//! Counts the log lines that were not written.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tracing_appender::non_blocking::ErrorCounter;

/// Lines above the limit of their place in the code.
static REPEATED: AtomicU64 = AtomicU64::new(0);
/// Counts lines for which the queue had no room.
static BLOCKED: OnceLock<ErrorCounter> = OnceLock::new();

/// Uses the counter of the process's writer from now on.
pub(super) fn watch(counter: ErrorCounter) {
    // Logging starts once in a process.
    let _ = BLOCKED.set(counter);
}

pub(super) fn count_repeated() {
    REPEATED.fetch_add(1, Ordering::Relaxed);
}

/// The metric `mcp_pod_log_lines_dropped_total`. All registries of a process show the same count.
#[derive(Debug)]
pub struct DroppedLines {
    lines: IntCounterVec,
    repeated: IntCounter,
    blocked: IntCounter,
    /// Held while the counters are updated.
    updating: Mutex<()>,
}

impl DroppedLines {
    /// Registers the metric.
    pub fn register(registry: &Registry) -> Result<(), prometheus::Error> {
        let lines = IntCounterVec::new(
            Opts::new("mcp_pod_log_lines_dropped_total", "Log lines that were not written, by cause"),
            &["cause"],
        )?;
        let (repeated, blocked) = (lines.with_label_values(&["repeated"]), lines.with_label_values(&["blocked"]));
        registry.register(Box::new(Self { lines, repeated, blocked, updating: Mutex::default() }))
    }
}

impl Collector for DroppedLines {
    fn desc(&self) -> Vec<&Desc> {
        self.lines.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _guard = self.updating.lock();
        let blocked = BLOCKED.get().map_or(0, |counter| counter.dropped_lines() as u64);
        for (counter, total) in [(&self.repeated, REPEATED.load(Ordering::Relaxed)), (&self.blocked, blocked)] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.lines.collect()
    }
}
