//! The watches that fill the index of the objects that the operator made.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use super::Change;
use super::owned::{Key, Meta, Owned};
use super::store::log_interruption;

/// Watches the metadata of one kind and keeps it in the index.
pub(super) fn index<K>(
    client: &Client,
    owned: &Arc<Owned>,
    changes: &broadcast::Sender<Change>,
    config: watcher::Config,
) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    owned.expect(&K::kind(&()));
    let stream = watcher(Api::<PartialObjectMeta<K>>::all(client.clone()), config).default_backoff();
    follow(stream.boxed(), K::kind(&()).into_owned(), owned.clone(), changes.clone()).boxed()
}

async fn follow<K: Resource<DynamicType = ()>>(
    mut stream: impl futures::Stream<Item = Result<Event<PartialObjectMeta<K>>, watcher::Error>> + Unpin + Send,
    kind: String,
    owned: Arc<Owned>,
    changes: broadcast::Sender<Change>,
) {
    // Fails before the first subscriber.
    let send = |labels| drop(changes.send(Change::Owned(labels)));
    let key = |object: &PartialObjectMeta<K>| Key {
        kind: kind.clone(),
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
    };
    let put = |key: Key, object: &PartialObjectMeta<K>| {
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let before = owned.put(key, Meta { uid, labels: labels.clone() });
        before.filter(|before| *before != labels).into_iter().chain([labels]).for_each(send);
    };
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.push(key(&object));
                put(key(&object), &object);
            }
            Ok(Event::InitDone) => owned.retain(&kind, &listed).into_iter().for_each(send),
            Ok(Event::Apply(object)) => put(key(&object), &object),
            Ok(Event::Delete(object)) => {
                send(owned.remove(&key(&object)).or(object.metadata.labels).unwrap_or_default());
            }
            Err(error) => log_interruption(&error, &kind),
        }
    }
}
