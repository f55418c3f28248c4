//! The watches behind the stores.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, future};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use super::guard::{Guarded, GuardedKind};
use super::objects::Objects;
use super::owned::{Key, Meta, Owned};
use super::{AllObjects, Cache, Change};
use crate::kubernetes::labels;

/// How many objects are listed at a time: a page of large ones has to fit into memory.
const PAGE: u32 = 50;
/// How many changes a listener may lag behind before it has to look at everything.
const BACKLOG: usize = 4096;

/// Makes the stores, and the future that keeps them filled; it never ends.
pub(crate) fn run(client: &Client) -> (Cache, BoxFuture<'static, ()>) {
    let changes = broadcast::channel(BACKLOG).0;
    let (tenants, all_tenants, watch_tenants) =
        store::<MCPTenant, _>(client, &changes, |name, _, _| Change::Tenant(name));
    let (servers, all_servers, watch_servers) =
        store::<MCPServer, _>(client, &changes, |name, ns, _| Change::Server(ns, name));
    let (scopes, all_scopes, watch_scopes) =
        store::<MCPScope, _>(client, &changes, |name, ns, _| Change::Scope(ns, name));
    let (principals, all_principals, watch_principals) =
        store::<MCPPrincipal, _>(client, &changes, |name, ns, _| Change::Principal(ns, name));
    let (budgets, all_budgets, watch_budgets) =
        store::<MCPBudget, _>(client, &changes, |name, ns, _| Change::Budget(ns, name));
    let objects = AllObjects {
        tenants: all_tenants,
        servers: all_servers,
        scopes: all_scopes,
        principals: all_principals,
        budgets: all_budgets,
    };

    let (services, writer) = reflector::store();
    let of_servers = watcher::Config::default().labels(labels::SERVER_UID).page_size(PAGE);
    let watch = watcher(Api::<Service>::all(client.clone()), of_servers).default_backoff();
    let stream = reflector(writer, watch.modify(|service| slim(service.meta_mut())));
    let watch_services = announce(stream, changes.clone(), |_, _, labels| Change::Service(labels));

    let (namespaces, writer) = reflector::store();
    let of_tenants = watcher::Config::default().labels(labels::TENANT).page_size(PAGE);
    let watch = watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), of_tenants).default_backoff();
    let stream = reflector(writer, watch.modify(|namespace| slim(namespace.meta_mut())));
    let watch_namespaces = announce(stream, changes.clone(), |name, _, _| Change::Namespace(name));

    let owned = Arc::new(Owned::default());
    let watch_owned = future::join_all([
        index::<Deployment>(client, &owned, &changes),
        index::<StatefulSet>(client, &owned, &changes),
        index::<Service>(client, &owned, &changes),
        index::<ServiceAccount>(client, &owned, &changes),
        index::<NetworkPolicy>(client, &owned, &changes),
        index::<ResourceQuota>(client, &owned, &changes),
        index::<LimitRange>(client, &owned, &changes),
        index::<PodDisruptionBudget>(client, &owned, &changes),
        index::<Role>(client, &owned, &changes),
        index::<RoleBinding>(client, &owned, &changes),
    ]);

    let cache = Cache { tenants, servers, scopes, principals, budgets, objects, services, namespaces, owned, changes };
    let watches = future::join_all([
        watch_tenants,
        watch_servers,
        watch_scopes,
        watch_principals,
        watch_budgets,
        watch_services.boxed(),
        watch_namespaces.boxed(),
        watch_owned.map(|_| ()).boxed(),
    ]);
    (cache, watches.map(|_| ()).boxed())
}

impl Cache {
    /// Waits until every store was filled once. False: a watch ended, which happens at shutdown only.
    pub(crate) async fn wait_until_filled(&self) -> bool {
        self.tenants.wait_until_ready().await.is_ok()
            && self.servers.wait_until_ready().await.is_ok()
            && self.scopes.wait_until_ready().await.is_ok()
            && self.principals.wait_until_ready().await.is_ok()
            && self.budgets.wait_until_ready().await.is_ok()
            && self.services.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
    }
}

fn store<K, F>(
    client: &Client,
    changes: &broadcast::Sender<Change>,
    change: F,
) -> (reflector::Store<K>, Objects<K>, BoxFuture<'static, ()>)
where
    K: GuardedKind,
    F: Fn(String, String, labels::Labels) -> Change + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let (objects, mut writer) = Objects::new(writer);
    let config = watcher::Config::default().page_size(PAGE);
    let watch = watcher(Api::<Guarded<K>>::all(client.clone()), config).default_backoff();
    let stream = watch.modify(|object| object.slim(slim)).map(move |event| event.map(|event| writer.apply(event)));
    (store, objects, announce(stream, changes.clone(), change).boxed())
}

/// Leaves out what nobody here reads, and what users may fill with 256 KiB an object. A status that is written back
/// without it changes nothing of it: the API server takes metadata from what it holds.
fn slim(metadata: &mut ObjectMeta) {
    (metadata.managed_fields, metadata.annotations) = (None, None);
}

/// Follows a reflector, and tells what changed once its store has it: after a full list that is everything in it, and
/// everything that was there before and is not any more.
async fn announce<K, S, F>(stream: S, changes: broadcast::Sender<Change>, change: F)
where
    K: Resource<DynamicType = ()> + 'static,
    S: futures::Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    F: Fn(String, String, labels::Labels) -> Change + Send + Sync,
{
    let (mut known, mut fresh) = (HashMap::new(), HashMap::new());
    let seen = |object: &K| {
        let place = (object.namespace().unwrap_or_default(), object.name_any());
        let change = change(place.1.clone(), place.0.clone(), object.labels().clone());
        (place, (Version::of(object), change))
    };
    futures::pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => fresh.clear(),
            Ok(Event::InitApply(object)) => {
                let (place, change) = seen(&object);
                fresh.insert(place, change);
            }
            Ok(Event::InitDone) => {
                known.retain(|place, _| !fresh.contains_key(place));
                send_all(&changes, known.drain());
                known = std::mem::take(&mut fresh);
                send_all(&changes, known.clone());
            }
            Ok(Event::Apply(object)) => {
                let (place, (version, change)) = seen(&object);
                let before = known.insert(place, (version.clone(), change.clone()));
                if version.is_none() || before.is_none_or(|(before, _)| before != version) {
                    let _ = changes.send(change);
                }
            }
            Ok(Event::Delete(object)) => {
                let (place, (_, change)) = seen(&object);
                known.remove(&place);
                let _ = changes.send(change);
            }
            Err(error) => tell(&error, K::kind(&()).as_ref()),
        }
    }
}

/// What of an object concerns others: not its status. None for kinds that do not count their generations.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    uid: Option<String>,
    generation: i64,
    leaving: bool,
    finalizers: Vec<String>,
}

impl Version {
    fn of<K: Resource>(object: &K) -> Option<Self> {
        Some(Self {
            uid: object.uid(),
            generation: object.meta().generation?,
            leaving: object.meta().deletion_timestamp.is_some(),
            finalizers: object.finalizers().to_vec(),
        })
    }
}

fn send_all<P: Eq + Hash, V>(changes: &broadcast::Sender<Change>, all: impl IntoIterator<Item = (P, (V, Change))>) {
    for (_, (_, change)) in all {
        // Before the first subscriber there is nobody to tell.
        let _ = changes.send(change);
    }
}

fn index<K>(client: &Client, owned: &Arc<Owned>, changes: &broadcast::Sender<Change>) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().labels(labels::MANAGED_SELECTOR).page_size(PAGE);
    let stream = watcher(Api::<PartialObjectMeta<K>>::all(client.clone()), config).default_backoff();
    follow_index(stream.boxed(), K::kind(&()).into_owned(), owned.clone(), changes.clone()).boxed()
}

async fn follow_index<K: Resource<DynamicType = ()>>(
    mut stream: impl futures::Stream<Item = Result<Event<PartialObjectMeta<K>>, watcher::Error>> + Unpin + Send,
    kind: String,
    owned: Arc<Owned>,
    changes: broadcast::Sender<Change>,
) {
    let mut present = Vec::new();
    let key = |object: &PartialObjectMeta<K>| Key {
        kind: kind.clone(),
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
    };
    let put = |key: Key, object: &PartialObjectMeta<K>| {
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let before = owned.put(key, Meta { uid, labels: labels.clone() });
        for labels in before.filter(|before| *before != labels).into_iter().chain([labels]) {
            let _ = changes.send(Change::Owned(labels));
        }
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => present.clear(),
            Ok(Event::InitApply(object)) => {
                present.push(key(&object));
                put(key(&object), &object);
            }
            Ok(Event::InitDone) => {
                for labels in owned.retain(&kind, &present) {
                    let _ = changes.send(Change::Owned(labels));
                }
            }
            Ok(Event::Apply(object)) => put(key(&object), &object),
            Ok(Event::Delete(object)) => {
                let labels = owned.take(&key(&object)).or(object.metadata.labels).unwrap_or_default();
                let _ = changes.send(Change::Owned(labels));
            }
            Err(error) => tell(&error, &kind),
        }
    }
}

fn tell(error: &watcher::Error, kind: &str) {
    tracing::warn!(error = error as &dyn std::error::Error, kind, "a watch broke; it is taken up again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_no_annotations_and_no_field_managers() {
        let mut service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "files", "annotations": {"note": "long"}, "managedFields": [{"manager": "kubectl"}],
                "labels": {"team": "acme"}, "finalizers": ["mcp-fleet.dev/teardown"]},
            "spec": {"clusterIP": "10.96.0.9"},
        }))
        .unwrap();
        slim(&mut service.metadata);
        let left = serde_json::to_value(&service).unwrap();
        assert_eq!(
            left["metadata"],
            serde_json::json!({"name": "files", "labels": {"team": "acme"}, "finalizers": ["mcp-fleet.dev/teardown"]})
        );
        assert_eq!(left["spec"]["clusterIP"], "10.96.0.9");
    }
}
