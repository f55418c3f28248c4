//! Forfeits the leases of gateway pods that are gone. A pod that is only disconnected keeps its leases until they
//! expire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::hub::{Gateways, Hub};
use crate::error;
use crate::kubernetes::labels;
use crate::kubernetes::timeout::with_timeout;
use crate::ledger::{AnyStore, Ledger};
use crate::retry::jittered;

/// How often the pods that hold leases are checked.
const REAP_INTERVAL: Duration = Duration::from_secs(10);

/// Checks periodically whether disconnected pods that hold leases still exist, and forfeits the leases of those that do
/// not. Never returns.
pub(crate) async fn reap(hub: &Hub, ledger: &Ledger<AnyStore>) {
    loop {
        tokio::time::sleep(jittered(REAP_INTERVAL)).await;
        for (tenant_uid, holders) in disconnected_holders(hub, ledger) {
            match running_pods(hub, &tenant_uid).await {
                Ok(None) => {}
                Ok(Some(running)) => {
                    for pod_uid in holders.difference(&running) {
                        tracing::info!(tenant_uid, pod_uid, "forfeiting the leases of a pod that is gone");
                        ledger.forfeit_pod(pod_uid, None).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(tenant_uid, error = error::chain(&error), "failed to list the pods of a gateway");
                }
            }
        }
    }
}

/// Returns the UIDs of pods that hold leases and are not connected, by UID of the tenant.
fn disconnected_holders(hub: &Hub, ledger: &Ledger<AnyStore>) -> BTreeMap<String, BTreeSet<String>> {
    let mut disconnected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, stored) in ledger.books() {
        for lease in &stored.book.leases {
            if !hub.shared_state.streams.is_connected(&lease.holder.pod_uid) {
                disconnected.entry(stored.owner.tenant_uid.clone()).or_default().insert(lease.holder.pod_uid.clone());
            }
        }
    }
    disconnected
}

/// Returns the UIDs of a tenant's gateway pods, or processes, that may still run. A deleted tenant has none. None if the tenant cannot
/// be read so far that its runtime namespace is known.
pub(super) async fn running_pods(hub: &Hub, tenant_uid: &str) -> Result<Option<BTreeSet<String>>, kube::Error> {
    let (client, cache) = match &hub.gateways {
        Gateways::Pods(pods) => (&pods.client, &pods.cache),
        Gateways::Local(gateways) => return Ok(Some(gateways.of_tenant(tenant_uid))),
    };
    let Some(tenant) = cache.objects.tenants.with_uid(tenant_uid) else { return Ok(Some(BTreeSet::new())) };
    let Some(tenant) = tenant.object() else { return Ok(None) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &tenant.runtime_namespace());
    let selector = format!("{}=gateway", labels::COMPONENT);
    let found = with_timeout(pods.list(&ListParams::default().labels(&selector))).await?;
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    Ok(Some(found.items.iter().filter(|pod| !has_ended(pod)).filter_map(ResourceExt::uid).collect()))
}
