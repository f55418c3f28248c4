//! The watches that fill the index of the objects that the operator made.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
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
    follower.follow(stream.boxed(), |_| None).boxed()
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
    follower.follow(stream.boxed(), workload).boxed()
}

struct Follower {
    kind: String,
    owned: Arc<Owned<Workload>>,
    changes: broadcast::Sender<Change>,
}

impl Follower {
    async fn follow<O>(
        self,
        mut stream: impl futures::Stream<Item = Result<Event<O>, watcher::Error>> + Unpin + Send,
        workload: impl Fn(&O) -> Option<Workload> + Send,
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
        let labels_of = |object: &O| object.meta().labels.as_ref().map(owner_labels).unwrap_or_default();
        let put = |key: Key, object: &O| {
            let (labels, uid) = (labels_of(object), object.meta().uid.clone().unwrap_or_default());
            let version = Version::of(object.meta(), APPLIED);
            let before = owned.put(key, Meta { uid, labels: labels.clone() }, version, workload(object));
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
                Ok(Event::Delete(object)) => send(owned.remove(&key(&object)).unwrap_or_else(|| labels_of(&object))),
                Err(error) => log_interruption(&error, &kind),
            }
        }
    }
}
