//! The metrics of the times at which credentials are rotated and expire, read from status at every scrape, so that deleted
//! principals disappear.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use crate::kubernetes::cache::Cache;
use crate::kubernetes::leader::Leadership;

/// `mcp_fleet_credential_{expiry,rotation}_timestamp_seconds`, on the leader only.
#[derive(Debug)]
pub(crate) struct CredentialExpiry {
    cache: Cache,
    leadership: Leadership,
    expiry: GaugeVec,
    rotation: GaugeVec,
}

impl CredentialExpiry {
    /// Creates the metrics of the principals in a cache.
    pub(crate) fn new(cache: Cache, leadership: Leadership) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            GaugeVec::new(
                Opts::new(format!("mcp_fleet_credential_{name}_timestamp_seconds"), help),
                &["tenant", "principal"],
            )
        };
        let expiry = gauge("expiry", "When the credential of a principal expires, Unix seconds")?;
        let rotation = gauge("rotation", "When the next credential of a principal is due, Unix seconds")?;
        Ok(Self { cache, leadership, expiry, rotation })
    }
}

impl Collector for CredentialExpiry {
    fn desc(&self) -> Vec<&Desc> {
        self.expiry.desc().into_iter().chain(self.rotation.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.expiry.reset();
        self.rotation.reset();
        let principals = if self.leadership.is_leader() { self.cache.principals.state() } else { vec![] };
        for principal in principals {
            let Some(namespace) = principal.metadata.namespace.as_deref() else { continue };
            let Some(tenant) = self.cache.tenant_of_namespace(namespace) else { continue };
            let credential = principal.status.as_ref().and_then(|status| status.credential.as_ref());
            let Some(credential) = credential else { continue };
            let label = format!("{namespace}/{}", principal.metadata.name.as_deref().unwrap_or_default());
            let tenant = tenant.metadata.name.as_deref().unwrap_or_default();
            self.expiry.with_label_values(&[tenant, &label]).set(seconds(&credential.expires_at));
            self.rotation.with_label_values(&[tenant, &label]).set(seconds(&credential.rotates_at));
        }
        let mut families = self.expiry.collect();
        families.extend(self.rotation.collect());
        families
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
fn seconds(time: &Time) -> f64 {
    time.0.as_second() as f64
}
