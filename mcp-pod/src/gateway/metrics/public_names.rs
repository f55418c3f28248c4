//! The certificates of public names, as metrics.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};

use crate::tls::PublicNames;

/// The metrics `mcp_pod_public_certificate_expiry_timestamp_seconds` and `mcp_pod_public_certificate_validity_seconds`. A
/// name that was never served has no series. One whose certificate has ended keeps it, or the alert would be resolved then.
#[derive(Debug)]
pub(super) struct PublicNameMetrics {
    names: Arc<PublicNames>,
    expiry: IntGaugeVec,
    validity: IntGaugeVec,
}

impl PublicNameMetrics {
    /// Registers the metrics.
    pub(super) fn register(registry: &Registry, names: &Arc<PublicNames>) -> Result<(), prometheus::Error> {
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["hostname"]);
        let expiry = gauge(
            "mcp_pod_public_certificate_expiry_timestamp_seconds",
            "When the certificate ends that is served for a public name, in Unix seconds",
        )?;
        let validity = gauge(
            "mcp_pod_public_certificate_validity_seconds",
            "From the begin to the end of the certificate that is served for a public name",
        )?;
        registry.register(Box::new(Self { names: Arc::clone(names), expiry, validity }))
    }
}

impl Collector for PublicNameMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.expiry.desc().into_iter().chain(self.validity.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.expiry.reset();
        self.validity.reset();
        for (name, validity) in self.names.validity() {
            self.expiry.with_label_values(&[&name]).set(validity.not_after);
            self.validity.with_label_values(&[&name]).set(validity.not_after.saturating_sub(validity.not_before));
        }
        let families = self.expiry.collect().into_iter().chain(self.validity.collect());
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}
