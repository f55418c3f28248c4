//! Which authority a fleet trusts: a record of its fingerprint, in the `ConfigMap` `mcp-fleet-ca` next to the Secret.
//!
//! The record tells a first start, which creates an authority, from a lost Secret, which must not silently get a new one:
//! every agent, gateway and tool pod trusts the old one. To accept another authority, an administrator annotates the record
//! with the fingerprint that it holds, so that an acceptance counts only once.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_core::labels;
use mcp_fleet_crds::MCPTenant;

use super::CA_NAME;
use crate::kubernetes::timeout::with_timeout;

/// Annotation of the record. If its value is the fingerprint in the record, another authority may replace that one.
pub(crate) const ACCEPT: &str = "mcp-fleet.dev/accept-new-ca";
/// Key of the fingerprint in the record.
const FINGERPRINT: &str = "fingerprint";
/// Fingerprint in the record of an authority that was lost together with its record.
pub(super) const UNKNOWN: &str = "unknown";
/// Number of tenants in one page of a list.
const PAGE_SIZE: u32 = 500;

/// The authority that the fleet trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Fingerprint of the authority's certificate.
    pub fingerprint: String,
    /// Whether another authority may replace it.
    pub accepts_another: bool,
    /// Version of the `ConfigMap`.
    pub version: Option<String>,
}

/// What to do about the authority at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Use the authority in the Secret.
    Use,
    /// Use the authority in the Secret, and record it.
    Record,
    /// Create an authority, and record it.
    Create,
    /// Record that the authority of this fleet is lost. It is not known which it was.
    RecordLoss,
    /// Refuse to start: the Secret does not exist.
    Missing,
    /// Refuse to start: the Secret holds another authority.
    Replaced,
}

/// Decides what to do about the authority. `stored` is the fingerprint of the one in the Secret, and `in_use` tells whether
/// an operator has worked in this cluster before.
pub(super) fn decide(record: Option<&Record>, stored: Option<&str>, in_use: bool) -> Decision {
    match (record, stored) {
        (Some(record), Some(stored)) if record.fingerprint == stored => Decision::Use,
        (Some(record), Some(_)) if record.accepts_another => Decision::Record,
        (Some(_), Some(_)) => Decision::Replaced,
        (Some(record), None) if record.accepts_another => Decision::Create,
        (Some(_), None) => Decision::Missing,
        // The first start of a version that keeps a record.
        (None, Some(_)) => Decision::Record,
        (None, None) if in_use => Decision::RecordLoss,
        (None, None) => Decision::Create,
    }
}

/// Reads the record.
pub(super) async fn read_record(api: &Api<ConfigMap>) -> Result<Option<Record>, kube::Error> {
    let Some(found) = with_timeout(api.get_opt(CA_NAME)).await? else { return Ok(None) };
    let fingerprint = found.data.as_ref().and_then(|data| data.get(FINGERPRINT)).cloned();
    let fingerprint = fingerprint.unwrap_or_else(|| UNKNOWN.to_owned());
    let accepts_another = found.annotations().get(ACCEPT) == Some(&fingerprint);
    Ok(Some(Record { fingerprint, accepts_another, version: found.metadata.resource_version }))
}

/// Writes the record over the version that was read. The annotation that accepts another authority goes with it.
pub(super) async fn write_record(
    api: &Api<ConfigMap>,
    before: Option<&Record>,
    fingerprint: &str,
) -> Result<(), kube::Error> {
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(CA_NAME.into()),
            labels: Some(labels::common("operator")),
            resource_version: before.and_then(|before| before.version.clone()),
            ..ObjectMeta::default()
        },
        data: Some([(FINGERPRINT.to_owned(), fingerprint.to_owned())].into()),
        ..ConfigMap::default()
    };
    let params = super::secret::post();
    match before {
        None => with_timeout(api.create(&params, &map)).await.map(|_| ()),
        Some(_) => with_timeout(api.replace(CA_NAME, &params, &map)).await.map(|_| ()),
    }
}

/// Whether an operator has worked in this cluster before: a tenant has its finalizer.
pub(super) async fn is_in_use(client: &Client) -> Result<bool, kube::Error> {
    let tenants: Api<MCPTenant> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE_SIZE);
    loop {
        let page = with_timeout(tenants.list_metadata(&params)).await?;
        if page.items.iter().any(|tenant| tenant.finalizers().iter().any(|name| name == labels::FINALIZER)) {
            return Ok(true);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fingerprint: &str, accepts_another: bool) -> Record {
        Record { fingerprint: fingerprint.into(), accepts_another, version: None }
    }

    #[test]
    fn only_a_first_start_creates_an_authority_unasked() {
        assert_eq!(decide(None, None, false), Decision::Create);
        assert_eq!(decide(None, None, true), Decision::RecordLoss);
        assert_eq!(decide(Some(&record("a", false)), None, false), Decision::Missing);
        assert_eq!(decide(Some(&record("a", true)), None, true), Decision::Create);
    }

    #[test]
    fn another_authority_is_used_only_if_it_is_accepted() {
        assert_eq!(decide(Some(&record("a", false)), Some("a"), true), Decision::Use);
        assert_eq!(decide(Some(&record("a", false)), Some("b"), true), Decision::Replaced);
        assert_eq!(decide(Some(&record("a", true)), Some("b"), true), Decision::Record);
        assert_eq!(decide(None, Some("a"), true), Decision::Record, "an installation of an earlier version");
    }
}
