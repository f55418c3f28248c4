//! Checkpoints of the gateways' audit logs: how far each one is known to have been written.
//!
//! A gateway reports the last line of its log from time to time. The operator stores that where neither the gateway nor
//! those who hold its logs can change it, so that a log whose end is missing, or a whole missing log, is noticed
//! (`mcp-fleet audit verify`). There is one `ConfigMap` for each tenant, which outlives the tenant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use mcp_fleet_audit::{Digest, Head};
use mcp_fleet_core::control_server::{AuditHeads, GatewayPod};
use mcp_fleet_core::labels;
use mcp_fleet_core::retry::jittered;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::error;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::timeout::with_timeout;

const COMPONENT: &str = "audit-checkpoints";
/// How often new checkpoints are stored.
const INTERVAL: Duration = Duration::from_secs(60);
/// Number of checkpoints of a tenant that are stored. The oldest ones go first.
const MAX_STORED: usize = 1000;
/// Number of checkpoints of a tenant that can wait to be stored.
const MAX_WAITING: usize = 64;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What is stored for one chain, by its ID. `mcp-fleet audit verify` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    pod: String,
    sequence: u64,
    digest: Digest,
    /// When the gateway reported the line.
    time: Timestamp,
}

type Entries = BTreeMap<Ulid, Entry>;

/// The checkpoints of all tenants.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    api: Api<ConfigMap>,
    waiting: Arc<Mutex<BTreeMap<Tenant, Entries>>>,
    writes: IntCounterVec,
}

impl Checkpoints {
    /// Creates a store in `namespace`, the operator's namespace, and registers its metric.
    pub(crate) fn new(client: Client, namespace: &str, registry: &Registry) -> prometheus::Result<Self> {
        let writes = IntCounterVec::new(
            Opts::new("mcp_fleet_audit_checkpoint_writes_total", "Writes of the checkpoints of a tenant's audit logs"),
            &["tenant", "outcome"],
        )?;
        registry.register(Box::new(writes.clone()))?;
        Ok(Self { api: Api::namespaced(client, namespace), waiting: Arc::default(), writes })
    }

    /// Records the last line of the log of a pod. It is stored later.
    pub(crate) fn note(&self, tenant: Tenant, pod: &str, head: Head) {
        let mut waiting = self.waiting.lock();
        let entries = waiting.entry(tenant).or_default();
        if entries.len() >= MAX_WAITING && !entries.contains_key(&head.chain) {
            return;
        }
        let entry = Entry {
            pod: pod.to_owned(),
            sequence: head.sequence,
            digest: head.digest,
            time: Timestamp::now().round(jiff::Unit::Second).unwrap_or_default(),
        };
        merge(entries, [(head.chain, entry)]);
    }

    /// Stores what was recorded, while this replica leads. Never returns.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(jittered(INTERVAL)).await;
            self.store_all().await;
        }
    }

    async fn store_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for (tenant, entries) in waiting {
            let result = self.store(&tenant, &entries).await;
            let outcome = if result.is_ok() { "ok" } else { "error" };
            self.writes.with_label_values(&[tenant.name.as_str(), outcome]).inc();
            if let Err(source) = result {
                tracing::warn!(
                    tenant = tenant.name,
                    error = error::chain(&source),
                    "failed to store the checkpoints of audit logs; trying again"
                );
                let mut waiting = self.waiting.lock();
                merge(waiting.entry(tenant).or_default(), entries);
            }
        }
    }

    async fn store(&self, tenant: &Tenant, new: &Entries) -> Result<(), kube::Error> {
        let name = format!("tenant-{}-audit", tenant.uid);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let found = with_timeout(self.api.get_opt(&name)).await?;
        let mut map = found.clone().unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels::of_tenant(COMPONENT, &tenant.name, &tenant.uid)),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        });
        let mut entries = read(map.data.as_ref());
        merge(&mut entries, new.clone());
        prune(&mut entries);
        let text = |entry: &Entry| serde_json::to_string(entry).map_err(kube::Error::SerdeError);
        let data = entries.iter().map(|(chain, entry)| Ok((chain.to_string(), text(entry)?)));
        map.data = Some(data.collect::<Result<_, kube::Error>>()?);
        match found {
            Some(_) => with_timeout(self.api.replace(&name, &params, &map)).await?,
            None => with_timeout(self.api.create(&params, &map)).await?,
        };
        Ok(())
    }
}

impl AuditHeads for Checkpoints {
    fn record(&self, gateway: &GatewayPod, head: Head) {
        let GatewayPod { tenant, tenant_uid, pod, .. } = gateway;
        self.note(Tenant { name: tenant.clone(), uid: tenant_uid.clone() }, pod, head);
    }
}

/// Adds entries, and keeps the later one of each chain.
fn merge(entries: &mut Entries, new: impl IntoIterator<Item = (Ulid, Entry)>) {
    for (chain, entry) in new {
        let known = entries.entry(chain).or_insert_with(|| entry.clone());
        if known.sequence < entry.sequence {
            *known = entry;
        }
    }
}

/// Removes the oldest entries beyond [`MAX_STORED`].
fn prune(entries: &mut Entries) {
    let excess = entries.len().saturating_sub(MAX_STORED);
    let mut by_age: Vec<(Timestamp, Ulid)> = entries.iter().map(|(chain, entry)| (entry.time, *chain)).collect();
    by_age.sort_unstable();
    for (_, chain) in by_age.into_iter().take(excess) {
        entries.remove(&chain);
    }
}

/// Reads the entries of a `ConfigMap`. What someone else added and cannot be read is left out.
fn read(data: Option<&BTreeMap<String, String>>) -> Entries {
    let entries = data.into_iter().flatten();
    entries.filter_map(|(chain, text)| Some((chain.parse().ok()?, serde_json::from_str(text).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;

    const PATH: &str = "/api/v1/namespaces/mcp-fleet-system/configmaps/tenant-u-1-audit";

    fn head(chain: u64, sequence: u64) -> Head {
        let digest = Digest::of(&sequence.to_be_bytes());
        Head { chain: Ulid::from_parts(chain, 0), sequence, digest }
    }

    fn tenant() -> Tenant {
        Tenant { name: "acme".into(), uid: "u-1".into() }
    }

    /// Returns the client of an API server that closes every connection.
    fn unreachable() -> Client {
        let refuse = tower::service_fn(async |_: http::Request<kube::client::Body>| {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("closed"))
        });
        Client::new(refuse, "default")
    }

    fn stored(api: &FakeApi) -> BTreeMap<u64, (String, u64)> {
        let map: ConfigMap = serde_json::from_value(api.get(PATH).unwrap()).unwrap();
        let entries = read(map.data.as_ref()).into_iter();
        entries.map(|(chain, entry)| (chain.timestamp_ms(), (entry.pod, entry.sequence))).collect()
    }

    #[tokio::test]
    async fn the_latest_line_of_each_chain_is_stored_once() {
        let api = FakeApi::default();
        let checkpoints = Checkpoints::new(api.client(), "mcp-fleet-system", &Registry::new()).unwrap();
        for (chain, pod, sequence) in
            [(1, "gateway-1", 5), (1, "gateway-1", 9), (1, "gateway-1", 7), (2, "gateway-2", 1)]
        {
            checkpoints.note(tenant(), pod, head(chain, sequence));
        }
        checkpoints.store_all().await;
        let expected = |first| BTreeMap::from([(1, ("gateway-1".into(), first)), (2, ("gateway-2".into(), 1))]);
        assert_eq!(stored(&api), expected(9));
        api.take_writes();
        checkpoints.store_all().await;
        assert!(api.take_writes().is_empty(), "nothing is new");

        // Another leader knows only what is stored.
        let successor = Checkpoints::new(api.client(), "mcp-fleet-system", &Registry::new()).unwrap();
        successor.note(tenant(), "gateway-1", head(1, 12));
        successor.store_all().await;
        assert_eq!(stored(&api), expected(12));
        checkpoints.note(tenant(), "gateway-1", head(1, 10));
        checkpoints.store_all().await;
        assert_eq!(stored(&api), expected(12), "a late report moves nothing back");
    }

    #[tokio::test]
    async fn writes_are_counted_by_their_outcome() {
        let api = FakeApi::default();
        let (good, bad) = (api.client(), unreachable());
        for (client, outcome) in [(good, "ok"), (bad, "error")] {
            let checkpoints = Checkpoints::new(client, "mcp-fleet-system", &Registry::new()).unwrap();
            checkpoints.note(tenant(), "gateway-1", head(1, 5));
            checkpoints.store_all().await;
            let counted = ["ok", "error"].map(|outcome| checkpoints.writes.with_label_values(&["acme", outcome]).get());
            assert_eq!(counted, ["ok", "error"].map(|one| u64::from(one == outcome)));
        }
    }

    #[test]
    fn the_oldest_checkpoints_are_removed() {
        let mut entries = Entries::new();
        for number in 0..1100_u64 {
            let Head { chain, sequence, digest } = head(number, 1);
            let time = Timestamp::from_second(2_000_000 - i64::try_from(number).unwrap()).unwrap();
            entries.insert(chain, Entry { pod: "gateway".into(), sequence, digest, time });
        }
        prune(&mut entries);
        assert_eq!(entries.len(), MAX_STORED);
        assert_eq!(entries.keys().last().unwrap().timestamp_ms(), 999);
        let size: usize = entries.values().map(|entry| serde_json::to_string(entry).unwrap().len() + 64).sum();
        assert!(size < 500 * 1024, "a ConfigMap holds 1 MiB: {size} bytes");
    }
}
