//! Our Secrets in the namespaces of tenants and in the operator's own, watched namespace by namespace (metadata only),
//! so that a deleted one comes back at once and no right to watch Secrets across the cluster is needed.

use std::collections::HashMap;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;

use super::{Cache, Change, Key};
use crate::kubernetes::labels;
use crate::tasks::ended;

/// The `RoleBinding` that lets the operator into a tenant's namespace: once it is there, the watch may start.
pub(crate) const OPERATOR_BINDING: &str = "mcp-fleet-operator";

/// Keeps one watch for `own`, the operator's namespace, and one for each of a tenant's; never ends. Dropping it ends all
/// of them.
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
        .state()
        .into_iter()
        .map(|namespace| namespace.name_any())
        .filter(|namespace| {
            let binding =
                Key { kind: "RoleBinding".into(), namespace: namespace.clone(), name: OPERATOR_BINDING.into() };
            cache.owned.has(&binding)
        })
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
                cache.announce(Change::Owned(object.metadata.labels.unwrap_or_default()));
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a watch of Secrets broke; it is taken up again"
                );
            }
        }
    }
}
