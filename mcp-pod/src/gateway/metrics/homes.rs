//! The lease of homes, as a metric.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Registry};

use crate::gateway::state::Homes;

/// The metric `mcp_pod_home_lease_seconds`.
#[derive(Debug)]
pub(super) struct HomeMetrics {
    homes: Arc<Homes>,
    lease: Gauge,
}

impl HomeMetrics {
    /// Registers the metric.
    pub(super) fn register(registry: &Registry, homes: &Arc<Homes>) -> Result<(), prometheus::Error> {
        let lease = Gauge::new(
            "mcp_pod_home_lease_seconds",
            "For how long this gateway admits calls if the operator does not renew its lease; 0 if it admits none",
        )?;
        registry.register(Box::new(Self { homes: Arc::clone(homes), lease }))
    }
}

impl Collector for HomeMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.lease.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A gateway that needs no lease has none that could end.
        let Some(left) = self.homes.lease_left() else { return Vec::new() };
        self.lease.set(left.as_secs_f64());
        self.lease.collect()
    }
}
