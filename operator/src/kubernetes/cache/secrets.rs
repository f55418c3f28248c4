//! Watches the metadata of our Secrets, so that a deleted one is restored at once. There is one watch for each namespace of
//! a tenant and one for the operator's own, so that the operator needs no permission to watch Secrets across the cluster.

use std::collections::HashMap;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;

use super::owned::owner_labels;
use super::{Cache, Change};
use crate::kubernetes::labels;
use crate::tasks::ended;

/// Runs a watch for `own`, the operator's namespace, and for every namespace of a tenant to which the operator has access.
/// Never returns; dropping it ends all watches.
pub(crate) async fn watch_secrets(client: Client, own: String, cache: Cache) {
    let mut changes = cache.subscribe();
    let mut tasks = tokio::task::JoinSet::new();
    let mut running: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        let mut wanted = namespaces(&cache);
        wanted.push(own.clone());
        running.retain(|namespace, task| {
            let keep = wanted.contains(namespace);
            if !keep {
                task.abort();
            }
            keep
        });
        for namespace in wanted {
            running.entry(namespace).or_insert_with_key(|namespace| {
                tasks.spawn(watch(Api::namespaced(client.clone(), namespace), cache.clone()))
            });
        }
        loop {
            match changes.recv().await {
                Ok(Change::Tenant(_) | Change::Namespace(_) | Change::Owned(_)) | Err(RecvError::Lagged(_)) => break,
                Ok(_) => {}
                Err(RecvError::Closed) => return,
            }
        }
        while let Some(joined) = tasks.try_join_next() {
            ended(joined);
        }
    }
}

fn namespaces(cache: &Cache) -> Vec<String> {
    let mut found: Vec<String> = cache
        .namespaces
        .all()
        .into_iter()
        .map(|namespace| namespace.name_any())
        .filter(|namespace| cache.has_access(namespace))
        .collect();
    found.sort_unstable();
    found
}

async fn watch(api: Api<PartialObjectMeta<Secret>>, cache: Cache) {
    let config = watcher::Config::default().labels(labels::MANAGED_SELECTOR);
    let mut stream = watcher(api, config).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) => {
                cache.announce(Change::Owned(object.metadata.labels.as_ref().map(owner_labels).unwrap_or_default()));
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a watch of Secrets was interrupted and is resumed"
                );
            }
        }
    }
}
