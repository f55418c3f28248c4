//! The lease of homes, as a metric.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Registry};

/// The metric `mcp_pod_home_lease_seconds`.
pub(super) struct HomeMetrics<F> {
    lease_left: F,
    lease: Gauge,
}

impl<F: Fn() -> Option<Duration> + Send + Sync + 'static> HomeMetrics<F> {
    /// Registers the metric. `lease_left` returns how long the lease still lasts; none if the gateway needs none.
    pub(super) fn register(registry: &Registry, lease_left: F) -> Result<(), prometheus::Error> {
        let lease = Gauge::new(
            "mcp_pod_home_lease_seconds",
            "For how long this gateway admits calls if the operator does not renew its lease; 0 if it admits none",
        )?;
        registry.register(Box::new(Self { lease_left, lease }))
    }
}

impl<F: Fn() -> Option<Duration> + Send + Sync> Collector for HomeMetrics<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.lease.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A gateway that needs no lease has none that could end.
        let Some(left) = (self.lease_left)() else { return Vec::new() };
        self.lease.set(left.as_secs_f64());
        self.lease.collect()
    }
}
