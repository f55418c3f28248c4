//! The metric of expiry times of credentials, read from status at every scrape, so that deleted principals disappear.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use crate::kubernetes::cache::Cache;
use crate::kubernetes::leader::Leadership;

/// `mcp_fleet_credential_expiry_timestamp_seconds`, on the leader only.
#[derive(Debug)]
pub(crate) struct CredentialExpiry {
    cache: Cache,
    leadership: Leadership,
    gauge: GaugeVec,
}

impl CredentialExpiry {
    /// Creates the metric of the principals in a cache.
    pub(crate) fn new(cache: Cache, leadership: Leadership) -> prometheus::Result<Self> {
        let opts = Opts::new(
            "mcp_fleet_credential_expiry_timestamp_seconds",
            "When the credential of a principal expires, Unix seconds",
        );
        Ok(Self { cache, leadership, gauge: GaugeVec::new(opts, &["tenant", "principal"])? })
    }
}

impl Collector for CredentialExpiry {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.reset();
        let principals = if self.leadership.is_leader() { self.cache.principals.state() } else { vec![] };
        for principal in principals {
            let Some(namespace) = principal.metadata.namespace.as_deref() else { continue };
            let Some(tenant) = self.cache.tenant_of_namespace(namespace) else { continue };
            let credential = principal.status.as_ref().and_then(|status| status.credential.as_ref());
            let Some(credential) = credential else { continue };
            let label = format!("{namespace}/{}", principal.metadata.name.as_deref().unwrap_or_default());
            let tenant = tenant.metadata.name.as_deref().unwrap_or_default();
            #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
            let expires = credential.expires_at.0.as_second() as f64;
            self.gauge.with_label_values(&[tenant, &label]).set(expires);
        }
        self.gauge.collect()
    }
}
