//! The watches that fill the index of the objects that the operator made.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use super::Change;
use super::owned::{Key, Meta, Owned, Version, owner_labels};
use super::store::log_interruption;
use super::workload::Workload;
use crate::kubernetes::apply::APPLIED;

/// Watches the metadata of one kind and keeps it in the index.
pub(super) fn index<K>(
    client: &Client,
    owned: &Arc<Owned<Workload>>,
    changes: &broadcast::Sender<Change>,
    config: watcher::Config,
) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    owned.expect(&K::kind(&()));
    let stream = watcher(Api::<PartialObjectMeta<K>>::all(client.clone()), config).default_backoff();
    let follower = Follower { kind: K::kind(&()).into_owned(), owned: owned.clone(), changes: changes.clone() };
    follower.follow(stream.boxed(), |object| (Version::of(object.meta(), APPLIED), None)).boxed()
}

/// Watches quotas, and keeps their metadata in the index. Kubernetes counts each object of a tenant in them, so a change of
/// the counts alone is not announced.
pub(super) fn index_quotas(
    client: &Client,
    owned: &Arc<Owned<Workload>>,
    changes: &broadcast::Sender<Change>,
    config: watcher::Config,
) -> BoxFuture<'static, ()> {
    let resource = ApiResource::erase::<ResourceQuota>(&());
    owned.expect(&resource.kind);
    let follower = Follower { kind: resource.kind.clone(), owned: owned.clone(), changes: changes.clone() };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    follower.follow(watcher(api, config).default_backoff().boxed(), describe_quota).boxed()
}

fn describe_quota(quota: &DynamicObject) -> (Version, Option<Workload>) {
    (Version::of_quota(&quota.metadata, &quota.data, APPLIED), None)
}

/// Watches workloads, and keeps their metadata and their state in the index.
pub(super) fn index_workloads<K>(
    client: &Client,
    owned: &Arc<Owned<Workload>>,
    changes: &broadcast::Sender<Change>,
    config: watcher::Config,
) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()>,
{
    owned.expect(&K::kind(&()));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    let stream = watcher(api, config).default_backoff();
    let kind = K::kind(&()).into_owned();
    let follower = Follower { kind: kind.clone(), owned: owned.clone(), changes: changes.clone() };
    let workload = move |object: &DynamicObject| {
        let mut live = object.data.clone();
        live["metadata"] = serde_json::json!({"generation": object.metadata.generation});
        Workload::of(&kind, &live)
    };
    let describe = move |object: &DynamicObject| (Version::of(&object.metadata, APPLIED), workload(object));
    follower.follow(stream.boxed(), describe).boxed()
}

struct Follower {
    kind: String,
    owned: Arc<Owned<Workload>>,
    changes: broadcast::Sender<Change>,
}

impl Follower {
    /// Follows a watch and announces what changed: the version or the state of an object, as `describe` returns them.
    async fn follow<O>(
        self,
        mut stream: impl futures::Stream<Item = Result<Event<O>, watcher::Error>> + Unpin + Send,
        describe: impl Fn(&O) -> (Version, Option<Workload>) + Send,
    ) where
        O: Resource + Send,
    {
        let Self { kind, owned, changes } = self;
        // Fails before the first subscriber.
        let send = |labels| drop(changes.send(Change::Owned(labels)));
        let key = |object: &O| Key {
            kind: kind.clone(),
            namespace: object.meta().namespace.clone().unwrap_or_default(),
            name: object.meta().name.clone().unwrap_or_default(),
        };
        let put = |key: Key, object: &O| {
            let (version, workload) = describe(object);
            if owned.shows(&key, version, workload) {
                return;
            }
            let (labels, uid) = (owner_labels(object.meta()), object.meta().uid.clone().unwrap_or_default());
            let before = owned.put(key, Meta { uid, labels: labels.clone() }, version, workload);
            before.filter(|before| *before != labels).into_iter().chain([labels]).for_each(send);
        };
        let mut listed = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(key(&object));
                    put(key(&object), &object);
                }
                Ok(Event::InitDone) => owned.retain(&kind, &std::mem::take(&mut listed)).into_iter().for_each(send),
                Ok(Event::Apply(object)) => put(key(&object), &object),
                Ok(Event::Delete(object)) => {
                    send(owned.remove(&key(&object)).unwrap_or_else(|| owner_labels(object.meta())));
                }
                Err(error) => log_interruption(&error, &kind),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_fleet_core::labels;
    use serde_json::{Value, json};

    use super::*;

    fn quota(version: &str, hard: &str, used: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "mcp-fleet", "namespace": "acme", "uid": "o-1", "resourceVersion": version,
                "labels": labels::of_tenant("quota", "acme", "u-1")},
            "spec": {"hard": {"pods": hard}},
            "status": {"used": used},
        }))
        .unwrap()
    }

    /// Returns how many changes are announced for these versions of a quota.
    async fn announced(versions: Vec<DynamicObject>) -> usize {
        let (changes, mut received) = broadcast::channel(16);
        let follower = Follower { kind: "ResourceQuota".into(), owned: Arc::default(), changes };
        let events = versions.into_iter().map(|version| Ok(Event::Apply(version)));
        follower.follow(futures::stream::iter(events), describe_quota).await;
        std::iter::from_fn(|| received.try_recv().ok()).count()
    }

    #[tokio::test]
    async fn counts_of_a_quota_are_not_announced() {
        let first = || quota("1", "5", &json!({}));
        assert_eq!(announced(vec![first(), quota("2", "5", &json!({"pods": "0"}))]).await, 2, "it is counted now");
        let counted = |version: &str, count: &str| quota(version, "5", &json!({"pods": count}));
        assert_eq!(announced(vec![counted("1", "0"), counted("2", "1"), counted("3", "2")]).await, 1);
        assert_eq!(announced(vec![first(), quota("2", "500", &json!({}))]).await, 2, "someone raised it");
    }
}
