//! The memory in use, as metrics.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

use super::{Account, Memory};

/// The metrics `mcp_pod_memory_reserved_bytes` and `mcp_pod_memory_limit_bytes`.
#[derive(Debug)]
pub(crate) struct MemoryMetrics {
    memory: Memory,
    reserved: IntGaugeVec,
    connections: IntGauge,
    requests: IntGauge,
}

impl MemoryMetrics {
    /// Registers the metrics.
    pub(crate) fn register(registry: &Registry, memory: &Memory) -> Result<(), prometheus::Error> {
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["use"]);
        let reserved = gauge("mcp_pod_memory_reserved_bytes", "Memory that connections and requests have reserved")?;
        let limit = gauge("mcp_pod_memory_limit_bytes", "Memory that connections and requests may reserve")?;
        limit.with_label_values(&["connections"]).set(signed(memory.connections.limit()));
        limit.with_label_values(&["requests"]).set(signed(memory.requests.limit()));
        registry.register(Box::new(limit))?;
        registry.register(Box::new(Self {
            memory: memory.clone(),
            connections: reserved.with_label_values(&["connections"]),
            requests: reserved.with_label_values(&["requests"]),
            reserved,
        }))
    }
}

impl Collector for MemoryMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.reserved.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let used = |account: &Account| signed(account.used());
        self.connections.set(used(&self.memory.connections));
        self.requests.set(used(&self.memory.requests));
        self.reserved.collect()
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
