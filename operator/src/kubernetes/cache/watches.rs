//! Starts the watches that fill the cache.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, future};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ObjectReference, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Client;
use kube::runtime::watcher;
use mcp_fleet_core::labels;
use tokio::sync::broadcast;

use super::index::{index, index_quotas, index_workloads};
use super::owned::Owned;
use super::store::{guarded_store, table};
use super::{AllObjects, Cache, Change};

/// Objects that are listed at a time: a page of large ones has to fit into memory.
const PAGE_SIZE: u32 = 50;
/// Changes by which a subscriber may lag before it has to check everything.
const CHANGE_BACKLOG: usize = 4096;

/// Returns an empty cache, and the future that fills it and keeps it current. The future never ends.
pub(crate) fn start(client: &Client) -> (Cache, BoxFuture<'static, ()>) {
    let changes = broadcast::channel(CHANGE_BACKLOG).0;
    let all = || watcher::Config::default().page_size(PAGE_SIZE);
    let labelled = |selector: &str| all().labels(selector);

    let (tenants, watch_tenants) = guarded_store(client, &changes, all(), |it| Change::Tenant(it.name));
    let (servers, watch_servers) = guarded_store(client, &changes, all(), |it| Change::Server(it.namespace, it.name));
    let (scopes, watch_scopes) = guarded_store(client, &changes, all(), |it| Change::Scope(it.namespace, it.name));
    let (principals, watch_principals) =
        guarded_store(client, &changes, all(), |it| Change::Principal(it.namespace, it.name));
    let (budgets, watch_budgets) = guarded_store(client, &changes, all(), |it| Change::Budget(it.namespace, it.name));
    let (endpoints, watch_endpoints) =
        table(client, &changes, labelled(labels::MANAGED_SELECTOR), reduce, |it| Change::Endpoints(it.labels));
    let (namespaces, watch_namespaces) =
        table(client, &changes, labelled(labels::TENANT), |_| {}, |it| Change::Namespace(it.name));

    let owned = Arc::new(Owned::default());
    let managed = || labelled(labels::MANAGED_SELECTOR);
    let watch_owned = future::join_all([
        index_workloads::<Deployment>(client, &owned, &changes, managed()),
        index_workloads::<StatefulSet>(client, &owned, &changes, managed()),
        index::<Service>(client, &owned, &changes, managed()),
        index::<ServiceAccount>(client, &owned, &changes, managed()),
        index::<NetworkPolicy>(client, &owned, &changes, managed()),
        index_quotas(client, &owned, &changes, managed()),
        index::<LimitRange>(client, &owned, &changes, managed()),
        index::<PodDisruptionBudget>(client, &owned, &changes, managed()),
        index::<Role>(client, &owned, &changes, managed()),
        index::<RoleBinding>(client, &owned, &changes, managed()),
        index::<Namespace>(client, &owned, &changes, managed()),
    ]);

    let objects = AllObjects { tenants, servers, scopes, principals, budgets };
    let cache = Cache::new(objects, endpoints, namespaces, owned, changes);
    let watches = future::join_all([
        watch_tenants,
        watch_servers,
        watch_scopes,
        watch_principals,
        watch_budgets,
        watch_endpoints,
        watch_namespaces,
        watch_owned.map(|_| ()).boxed(),
    ]);
    (cache, watches.map(|_| ()).boxed())
}

/// Removes what the operator does not read of an EndpointSlice: all but the addresses of pods, the state of tool pods, and the UIDs
/// of gateway pods.
fn reduce(slice: &mut EndpointSlice) {
    let is_of_gateway = slice.metadata.labels.as_ref().is_some_and(|labels| !labels.contains_key(labels::SERVER_UID));
    for endpoint in &mut slice.endpoints {
        let Endpoint { addresses, conditions, target_ref, .. } = std::mem::take(endpoint);
        *endpoint = if is_of_gateway {
            let uid = target_ref.and_then(|target| target.uid);
            let target_ref = Some(ObjectReference { uid, ..ObjectReference::default() });
            Endpoint { addresses, target_ref, ..Endpoint::default() }
        } else {
            Endpoint { addresses, conditions, ..Endpoint::default() }
        };
    }
    // A list that was read has room for four, and most slices have one endpoint.
    slice.endpoints.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reduced(labels: &Value) -> Value {
        let mut slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": true}, "nodeName": "n-1", "zone": "z",
                "targetRef": {"kind": "Pod", "name": "mcp-files-0", "uid": "p-1"}}],
        }))
        .unwrap();
        reduce(&mut slice);
        assert_eq!(slice.endpoints.capacity(), 1, "an endpoint takes more memory than everything else of a slice");
        serde_json::to_value(&slice.endpoints).unwrap()
    }

    #[test]
    fn the_cache_holds_addresses_of_pods_and_uids_of_gateway_pods() {
        let tool = reduced(&json!({labels::SERVER_UID: "s-1"}));
        assert_eq!(tool, json!([{"addresses": ["10.244.0.7"], "conditions": {"ready": true}}]));
        assert_eq!(reduced(&json!({})), json!([{"addresses": ["10.244.0.7"], "targetRef": {"uid": "p-1"}}]));
    }
}
