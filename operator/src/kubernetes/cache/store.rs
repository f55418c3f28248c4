//! One store of the cache: the watch that fills it, and the changes that are announced once the store has them.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt as _};
use kube::core::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_crds::names::{CLEAR_BREAKERS, CREATED_FOR, TOP_UP};
use mcp_fleet_crds::top_up::MAX_TOP_UP;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use super::Change;
use super::guard::{Guarded, GuardedKind};
use super::objects::Objects;
use super::table::{Table, key, version};
use crate::kubernetes::labels::{Labels, RESTORED_FROM};

/// What a change says about an object.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: Labels,
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
    let (table, mut listed, mut newest_listed) = (Table::default(), HashSet::new(), 0);
    let watch = watcher(Api::<K>::all(client.clone()), config).default_backoff();
    let rows = table.clone();
    let stripped = watch.modify(move |object| {
        strip(object.meta_mut());
        reduce(object);
    });
    let stream = stripped.map_ok(move |event| {
        match &event {
            Event::Init => (listed, newest_listed) = (HashSet::new(), 0),
            Event::InitApply(object) => {
                listed.insert(key(object.meta()));
                newest_listed = newest_listed.max(version(object.meta()));
                rows.put(Arc::new(object.clone()));
            }
            Event::InitDone => {
                rows.retain(&std::mem::take(&mut listed));
                // Not before: a part of a list says nothing about the rest.
                rows.advance(newest_listed);
            }
            Event::Apply(object) => {
                rows.put(Arc::new(object.clone()));
                rows.advance(version(object.meta()));
            }
            Event::Delete(object) => {
                rows.remove(object.meta());
                rows.advance(version(object.meta()));
            }
        }
        event
    });
    (table, announce(stream, changes.clone(), change).boxed())
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
    let stream = watch.modify(|object| object.strip(strip)).map(move |event| event.map(|event| writer.apply(event)));
    (objects, announce(stream, changes.clone(), change).boxed())
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

/// Follows a reflector and announces each change after the store has it. After a full list these are all objects in it,
/// and all objects that were known before and are gone.
async fn announce<K, S, F>(stream: S, changes: broadcast::Sender<Change>, change: F)
where
    K: Resource<DynamicType = ()> + 'static,
    S: futures::Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    F: Fn(Changed) -> Change + Send + Sync,
{
    // Fails before the first subscriber.
    let send = |change: Change| drop(changes.send(change));
    let hasher = RandomState::new();
    let describe = |object: &K| {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let key = (namespace.clone(), name.clone());
        (key, (Version::of(object, &hasher), change(Changed { namespace, name, labels: object.labels().clone() })))
    };
    let (mut known, mut listed) = (HashMap::new(), HashMap::new());
    futures::pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let (key, described) = describe(&object);
                listed.insert(key, described);
            }
            Ok(Event::InitDone) => {
                known.retain(|key, _| !listed.contains_key(key));
                for (_, (_, gone)) in known.drain() {
                    send(gone);
                }
                known = std::mem::take(&mut listed);
                for (_, change) in known.values() {
                    send(change.clone());
                }
            }
            Ok(Event::Apply(object)) => {
                let (key, (version, change)) = describe(&object);
                let before = known.insert(key, (version, change.clone()));
                if version.is_none() || before.is_none_or(|(before, _)| before != version) {
                    send(change);
                }
            }
            Ok(Event::Delete(object)) => {
                let (key, (_, change)) = describe(&object);
                known.remove(&key);
                send(change);
            }
            Err(error) => log_interruption(&error, K::kind(&()).as_ref()),
        }
    }
}

/// Logs that a watch was interrupted. The watcher resumes it.
pub(super) fn log_interruption(error: &watcher::Error, kind: &str) {
    tracing::warn!(error = error as &dyn std::error::Error, kind, "a watch was interrupted and is resumed");
}

/// Hash of the part of an object whose changes matter to others; status does not. There is one for each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version(u64);

impl Version {
    /// Returns the version of an object; none for a kind without generations. `hasher` has random keys, so that nobody can
    /// write two versions with one hash.
    fn of<K: Resource>(object: &K, hasher: &RandomState) -> Option<Self> {
        let generation = object.meta().generation?;
        let is_being_deleted = object.meta().deletion_timestamp.is_some();
        // The only annotations that are part of a policy.
        let annotated = [CLEAR_BREAKERS, TOP_UP].map(|name| object.annotations().get(name));
        Some(Self(hasher.hash_one((object.uid(), generation, is_being_deleted, object.finalizers(), annotated))))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

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
    fn an_annotation_that_clears_breakers_is_kept_and_is_a_change() {
        let hasher = RandomState::new();
        let principal = |annotations: serde_json::Value| {
            let mut principal: mcp_fleet_crds::MCPPrincipal = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "coder", "uid": "u-1", "generation": 3, "annotations": annotations}, "spec": {},
            }))
            .unwrap();
            strip(&mut principal.metadata);
            Version::of(&principal, &hasher)
        };
        let at = |time: &str| principal(serde_json::json!({"mcp-fleet.dev/clear-breakers": time, "note": time}));
        assert_ne!(at("2026-11-22T12:00:00Z"), at("2026-11-22T12:00:01Z"));
        assert_ne!(at("2026-11-22T12:00:00Z"), principal(serde_json::json!({})));
        assert_eq!(principal(serde_json::json!({"note": "a"})), principal(serde_json::json!({"note": "b"})));
    }

    #[test]
    fn a_top_up_is_kept_and_is_a_change_and_no_long_value_becomes_valid() {
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
        let hasher = RandomState::new();
        let version = |value: &str| Version::of(&budget(value), &hasher);
        assert_ne!(version(value), version("2026-11-26T09:30:00Z calls=2"));
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
