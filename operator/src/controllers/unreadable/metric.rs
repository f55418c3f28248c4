//! The metric of objects that cannot be read, counted at every scrape.

use mcp_fleet_core::guard::GuardedKind;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::kubernetes::cache::{Cache, Objects};

/// `mcp_fleet_unreadable_objects`.
#[derive(Debug)]
pub(crate) struct UnreadableObjects {
    cache: Cache,
    gauge: IntGaugeVec,
}

impl UnreadableObjects {
    /// Creates the metric of the objects in a cache.
    pub(crate) fn new(cache: Cache) -> prometheus::Result<Self> {
        let opts = Opts::new("mcp_fleet_unreadable_objects", "Objects that the operator cannot read");
        Ok(Self { cache, gauge: IntGaugeVec::new(opts, &["kind"])? })
    }

    fn count<K: GuardedKind>(&self, objects: &Objects<K>) {
        let number = i64::try_from(objects.unreadable().len()).unwrap_or(i64::MAX);
        self.gauge.with_label_values(&[&*K::kind(&())]).set(number);
    }
}

impl Collector for UnreadableObjects {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = &self.cache.objects;
        self.count(&all.tenants);
        self.count(&all.servers);
        self.count(&all.scopes);
        self.count(&all.principals);
        self.count(&all.budgets);
        self.gauge.collect()
    }
}
