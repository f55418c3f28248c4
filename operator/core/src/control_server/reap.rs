//! Forfeits the leases of gateway pods that are gone. A pod that is only disconnected keeps its leases until they
//! expire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::hub::Hub;
use crate::error;
use crate::ledger::{AnyStore, Ledger};
use crate::retry::jittered;

/// How often the pods that hold leases are checked.
const REAP_INTERVAL: Duration = Duration::from_secs(10);

/// Checks periodically whether disconnected pods that hold leases still exist, and forfeits the leases of those that do
/// not. Never returns.
pub async fn reap(hub: &Hub, ledger: &Ledger<AnyStore>) {
    loop {
        tokio::time::sleep(jittered(REAP_INTERVAL)).await;
        for (tenant_uid, holders) in disconnected_holders(hub, ledger) {
            match hub.gateways.running(&tenant_uid).await {
                Ok(None) => {}
                Ok(Some(running)) => {
                    for pod_uid in holders.difference(&running) {
                        tracing::info!(tenant_uid, pod_uid, "forfeiting the leases of a pod that is gone");
                        ledger.forfeit_pod(pod_uid, None).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(tenant_uid, error = error::chain(&*error), "failed to list the pods of a gateway");
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
