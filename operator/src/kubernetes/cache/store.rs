//! One store of the cache: the watch that fills it, and the changes that are announced once the store has them.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt as _};
use kube::core::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use mcp_fleet_core::guard::{Guarded, GuardedKind};
use mcp_fleet_core::labels::{OwnerLabels, RESTORED_FROM};
use mcp_fleet_crds::names::{CLEAR_BREAKERS, CREATED_FOR, TOP_UP};
use mcp_fleet_crds::top_up::MAX_TOP_UP;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use super::Change;
use super::objects::Objects;
use super::owned::owner_labels;
use super::table::{Row, Table, key};
use super::writer::TableWriter;

/// What a change says about an object.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: Arc<OwnerLabels>,
}

impl Changed {
    fn of(metadata: &ObjectMeta) -> Self {
        let (namespace, name) = key(metadata);
        Self { namespace, name, labels: owner_labels(metadata) }
    }
}

/// Returns a table of all objects that match `config`, and the watch that fills it. `reduce` removes what the operator does
/// not read of an object, besides its metadata.
pub(super) fn table<K, F>(
    client: &Client,
    changes: &broadcast::Sender<Change>,
    config: watcher::Config,
    reduce: fn(&mut K),
    change: F,
) -> (Table<Arc<K>>, BoxFuture<'static, ()>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    F: Fn(Changed) -> Change + Send + Sync + 'static,
{
    let table = Table::default();
    let mut writer = TableWriter::new(table.clone());
    let watch = watcher(Api::<K>::all(client.clone()), config).default_backoff();
    let stripped = watch.modify(move |object| {
        strip(object.meta_mut());
        reduce(object);
    });
    let updates = stripped.map_ok(move |event| writer.apply(rows(event)));
    (table, announce(updates, K::kind(&()).into_owned(), changes.clone(), change).boxed())
}

/// Returns an event with an object as a table holds it.
fn rows<K>(event: Event<K>) -> Event<Arc<K>> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(Arc::new(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(Arc::new(object)),
        Event::Delete(object) => Event::Delete(Arc::new(object)),
    }
}

/// Returns all objects of a kind that match `config`, whether they can be read or not, and the watch that keeps them
/// current.
pub(super) fn guarded_store<K, F>(
    client: &Client,
    changes: &broadcast::Sender<Change>,
    config: watcher::Config,
    change: F,
) -> (Objects<K>, BoxFuture<'static, ()>)
where
    K: GuardedKind,
    F: Fn(Changed) -> Change + Send + Sync + 'static,
{
    let (objects, mut writer) = Objects::new();
    let watch = watcher(Api::<Guarded<K>>::all(client.clone()), config).default_backoff();
    let updates = watch.modify(|object| object.strip(strip)).map_ok(move |event| writer.apply(event));
    (objects, announce(updates, K::kind(&()).into_owned(), changes.clone(), change).boxed())
}

/// Length of a UID, and some more.
const MAX_UID: usize = 64;

/// Removes what the operator never reads, and what users can fill with hundreds of KiB an object. A status that is written with
/// the stripped object does not remove it: on a status update the API server ignores most metadata.
fn strip(metadata: &mut ObjectMeta) {
    (metadata.managed_fields, metadata.owner_references) = (None, None);
    let is_read = |key: &String, value: &mut String| {
        if key == TOP_UP {
            // A longer one is not valid, and what is left of it is not either.
            value.truncate(value.floor_char_boundary(MAX_TOP_UP + 4));
            return true;
        }
        [RESTORED_FROM, CREATED_FOR, CLEAR_BREAKERS].contains(&key.as_str()) && value.len() <= MAX_UID
    };
    metadata.annotations = metadata.annotations.take().and_then(|mut annotations| {
        annotations.retain(is_read);
        (!annotations.is_empty()).then_some(annotations)
    });
}

/// Announces the objects of a kind whose change matters to others, once the store has it.
async fn announce<R, S, F>(updates: S, kind: String, changes: broadcast::Sender<Change>, change: F)
where
    R: Row + Send,
    S: futures::Stream<Item = Result<Vec<R>, watcher::Error>> + Send,
    F: Fn(Changed) -> Change + Send + Sync,
{
    futures::pin_mut!(updates);
    while let Some(update) = updates.next().await {
        match update {
            // Fails before the first subscriber.
            Ok(rows) => rows.iter().for_each(|row| drop(changes.send(change(Changed::of(row.metadata()))))),
            Err(error) => log_interruption(&error, &kind),
        }
    }
}

/// Logs that a watch was interrupted. The watcher resumes it.
pub(super) fn log_interruption(error: &watcher::Error, kind: &str) {
    tracing::warn!(error = error as &dyn std::error::Error, kind, "a watch was interrupted and is resumed");
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::ResourceExt as _;

    use super::*;

    #[test]
    fn a_store_holds_no_metadata_that_the_operator_never_reads() {
        let mut service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "files", "annotations": {"note": "long", RESTORED_FROM: "u-1"}, "managedFields": [{"manager": "kubectl"}],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x".repeat(9), "uid": "u-1"}],
                "labels": {"team": "acme"}, "finalizers": ["mcp-fleet.dev/teardown"]},
            "spec": {"clusterIP": "10.96.0.9"},
        }))
        .unwrap();
        strip(&mut service.metadata);
        let left = serde_json::to_value(&service).unwrap();
        assert_eq!(
            left["metadata"],
            serde_json::json!({"name": "files", "labels": {"team": "acme"}, "finalizers": ["mcp-fleet.dev/teardown"],
                "annotations": {RESTORED_FROM: "u-1"}})
        );
        assert_eq!(left["spec"]["clusterIP"], "10.96.0.9");
    }

    #[test]
    fn an_annotation_that_clears_breakers_is_kept() {
        let mut metadata: ObjectMeta = serde_json::from_value(
            serde_json::json!({"annotations": {CLEAR_BREAKERS: "2026-11-22T12:00:00Z", "note": "a"}}),
        )
        .unwrap();
        strip(&mut metadata);
        assert_eq!(metadata.annotations, Some([(CLEAR_BREAKERS.to_owned(), "2026-11-22T12:00:00Z".to_owned())].into()));
    }

    #[test]
    fn a_top_up_is_kept_and_no_long_value_becomes_valid() {
        let budget = |value: &str| {
            let mut budget: mcp_fleet_crds::MCPBudget = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "daily", "uid": "b-1", "generation": 3, "annotations": {TOP_UP: value}},
                "spec": {"period": "Day", "calls": 5},
            }))
            .unwrap();
            strip(&mut budget.metadata);
            budget
        };
        let parsed = |value: &str| {
            let budget = budget(value);
            mcp_fleet_crds::top_up::parse(&budget.annotations()[TOP_UP], &budget.spec).is_ok()
        };
        let value = "2026-11-26T09:30:00Z calls=1";
        assert!(parsed(value));
        assert!(!parsed(&format!("{value}{} calls=2", " ".repeat(200))), "a part of the value counts");
    }

    #[test]
    fn the_tenant_that_a_namespace_was_created_for_is_kept() {
        let annotations = |value: &str| {
            let created_for = (CREATED_FOR.to_owned(), value.to_owned());
            let mut metadata = ObjectMeta {
                annotations: Some([created_for, ("note".into(), "long".into())].into()),
                ..ObjectMeta::default()
            };
            strip(&mut metadata);
            metadata.annotations
        };
        assert_eq!(annotations("u-1"), Some([(CREATED_FOR.to_owned(), "u-1".to_owned())].into()));
        assert_eq!(annotations(&"u".repeat(65)), None);
    }
}
