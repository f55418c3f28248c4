//! Gives up the leases of gateways whose pods are gone. A pod that is merely not connected keeps what it holds, until
//! its leases are overdue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::context::Context;
use crate::error;
use crate::kubernetes::labels;
use crate::kubernetes::timeout::with_timeout;
use crate::ledger::{ApiStore, Ledger};
use crate::retry::jittered;

/// How often pods are looked for.
const EVERY: Duration = Duration::from_secs(10);

/// Looks every now and then for the pods that hold leases and are not connected. Never returns.
pub(crate) async fn reap(ctx: &Context, ledger: &Ledger<ApiStore>) {
    loop {
        tokio::time::sleep(jittered(EVERY)).await;
        for (tenant_uid, holders) in absent(ctx, ledger) {
            match running(ctx, &tenant_uid).await {
                Ok(running) => {
                    for pod_uid in holders.difference(&running) {
                        tracing::info!(tenant_uid, pod_uid, "gave up the leases of a pod that is gone");
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

/// The pods that hold leases and are not connected, by the tenant's UID.
fn absent(ctx: &Context, ledger: &Ledger<ApiStore>) -> BTreeMap<String, BTreeSet<String>> {
    let mut absent: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, stored) in ledger.books() {
        for lease in &stored.book.leases {
            if !ctx.shared_state.streams.has(&lease.holder.pod_uid) {
                absent.entry(stored.owner.tenant_uid.clone()).or_default().insert(lease.holder.pod_uid.clone());
            }
        }
    }
    absent
}

/// The UIDs of a tenant's gateway pods that may still run. A tenant that is gone has none.
async fn running(ctx: &Context, tenant_uid: &str) -> Result<BTreeSet<String>, kube::Error> {
    let Some(tenant) = ctx.cache.tenant_by_uid(tenant_uid) else { return Ok(BTreeSet::new()) };
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &tenant.runtime_namespace());
    let selector = format!("{}=gateway", labels::COMPONENT);
    let found = with_timeout(pods.list(&ListParams::default().labels(&selector))).await?;
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    Ok(found.items.iter().filter(|pod| !ended(pod)).filter_map(ResourceExt::uid).collect())
}
