//! Objects of one kind, found by name, by namespace, by UID, and by what they claim. No lookup depends on how many objects
//! other tenants have.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::RwLock;
use tokio::sync::watch;

/// What a table holds. Clones are cheap.
pub(crate) trait Row: Clone {
    fn metadata(&self) -> &ObjectMeta;

    /// Returns the namespaces that the object claims, if it is of a kind that claims namespaces, and its other claims in a
    /// form that is no name of a namespace.
    fn claims(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns what in the status matters to others.
    fn shared_status(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<K: Resource<DynamicType = ()>> Row for Arc<K> {
    fn metadata(&self) -> &ObjectMeta {
        self.meta()
    }
}

/// Namespace and name of an object. The namespace is empty if the kind has none.
pub(super) type Key = (String, String);

/// Objects of one kind, shared by a writer and any number of readers.
#[derive(Clone, Debug)]
pub(crate) struct Table<R>(Arc<Shared<R>>);

#[derive(Debug)]
struct Shared<R> {
    rows: RwLock<Rows<R>>,
    filled: watch::Sender<bool>,
    position: AtomicU64,
}

#[derive(Debug)]
struct Rows<R> {
    namespaces: HashMap<String, HashMap<String, R>>,
    uids: HashMap<String, R>,
    claims: HashMap<String, Vec<Key>>,
}

impl<R: Row> Default for Table<R> {
    fn default() -> Self {
        let rows = Rows { namespaces: HashMap::new(), uids: HashMap::new(), claims: HashMap::new() };
        Self(Arc::new(Shared {
            rows: RwLock::new(rows),
            filled: watch::Sender::new(false),
            position: AtomicU64::new(0),
        }))
    }
}

impl<R: Row> Table<R> {
    /// Returns the object with a name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<R> {
        self.0.rows.read().namespaces.get(namespace)?.get(name).cloned()
    }

    /// Returns the object with a UID.
    pub(crate) fn with_uid(&self, uid: &str) -> Option<R> {
        self.0.rows.read().uids.get(uid).cloned()
    }

    /// Returns the objects in a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<R> {
        let rows = self.0.rows.read();
        rows.namespaces.get(namespace).into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// Returns the objects that make a claim, such as on a namespace.
    pub(crate) fn claiming(&self, claim: &str) -> Vec<R> {
        let rows = self.0.rows.read();
        let found = rows.claims.get(claim).into_iter().flatten();
        found.filter_map(|(namespace, name)| rows.namespaces.get(namespace)?.get(name).cloned()).collect()
    }

    /// Returns all objects at one time.
    pub(crate) fn all(&self) -> Vec<R> {
        self.0.rows.read().namespaces.values().flat_map(HashMap::values).cloned().collect()
    }

    /// Returns the number of objects.
    pub(crate) fn len(&self) -> usize {
        self.0.rows.read().namespaces.values().map(HashMap::len).sum()
    }

    /// Returns the version up to which the watch has delivered every change: that of the newest event. 0 if there was none.
    pub(crate) fn position(&self) -> u64 {
        self.0.position.load(Ordering::Acquire)
    }

    /// Records that the watch has delivered every change up to that of an object.
    pub(super) fn advance(&self, position: u64) {
        self.0.position.fetch_max(position, Ordering::AcqRel);
    }

    /// Waits until a full list was read. Returns false if there is no writer any more.
    pub(crate) async fn wait_until_filled(&self) -> bool {
        self.0.filled.subscribe().wait_for(|filled| *filled).await.is_ok()
    }

    /// Adds an object, or replaces the one of the same name, which it returns.
    pub(crate) fn put(&self, row: R) -> Option<R> {
        let mut rows = self.0.rows.write();
        let key = key(row.metadata());
        let before = rows.remove(&key);
        if let Some(uid) = row.metadata().uid.clone() {
            rows.uids.insert(uid, row.clone());
        }
        for claim in row.claims() {
            rows.claims.entry(claim).or_default().push(key.clone());
        }
        rows.namespaces.entry(key.0).or_default().insert(key.1, row);
        before
    }

    /// Removes the object with the namespace and the name of `metadata`.
    pub(super) fn remove(&self, metadata: &ObjectMeta) {
        self.0.rows.write().remove(&key(metadata));
    }

    /// Removes the objects that a full list does not contain, and returns them. From then on the table is filled.
    pub(super) fn retain(&self, listed: &HashSet<Key>) -> Vec<R> {
        let mut rows = self.0.rows.write();
        let names = rows
            .namespaces
            .iter()
            .flat_map(|(namespace, rows)| rows.keys().map(move |name| (namespace.clone(), name.clone())));
        let gone: Vec<Key> = names.filter(|key| !listed.contains(key)).collect();
        let gone = gone.iter().filter_map(|key| rows.remove(key)).collect();
        drop(rows);
        self.0.filled.send_replace(true);
        gone
    }
}

impl<R: Row> Rows<R> {
    fn remove(&mut self, key: &Key) -> Option<R> {
        let of_namespace = self.namespaces.get_mut(&key.0)?;
        let row = of_namespace.remove(&key.1)?;
        if of_namespace.is_empty() {
            self.namespaces.remove(&key.0);
        }
        if let Some(uid) = &row.metadata().uid {
            self.uids.remove(uid);
        }
        for claim in row.claims() {
            if let Some(keys) = self.claims.get_mut(&claim) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.claims.remove(&claim);
                }
            }
        }
        Some(row)
    }
}

/// Returns the version of an object as a number; 0 if it is none. Kubernetes guarantees that versions of one kind grow with
/// every change and may be compared as numbers.
pub(crate) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Returns namespace and name of an object.
pub(super) fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Claim(ObjectMeta, Vec<String>);

    impl Row for Claim {
        fn metadata(&self) -> &ObjectMeta {
            &self.0
        }

        fn claims(&self) -> Vec<String> {
            self.1.clone()
        }
    }

    fn row(namespace: &str, name: &str, uid: &str, claims: &[&str]) -> Claim {
        let text = |text: &str| Some(text.to_owned());
        let metadata =
            ObjectMeta { name: text(name), namespace: text(namespace), uid: text(uid), ..ObjectMeta::default() };
        Claim(metadata, claims.iter().map(|claim| (*claim).to_owned()).collect())
    }

    #[test]
    fn an_object_is_found_by_each_of_its_keys_and_no_longer_by_its_old_ones() {
        let table = Table::default();
        table.put(row("acme", "a", "u-1", &["one", "two"]));
        table.put(row("beta", "a", "u-2", &["two"]));
        assert_eq!((table.len(), table.in_namespace("acme").len(), table.claiming("two").len()), (2, 1, 2));
        table.put(row("acme", "a", "u-3", &["three"]));
        assert_eq!(table.get("acme", "a").unwrap().0.uid.as_deref(), Some("u-3"));
        assert!(table.with_uid("u-1").is_none() && table.claiming("one").is_empty());
        assert_eq!(table.claiming("two"), [row("beta", "a", "u-2", &["two"])]);
        table.remove(&row("acme", "a", "", &[]).0);
        assert!(table.with_uid("u-3").is_none() && table.in_namespace("acme").is_empty());
    }

    #[tokio::test]
    async fn objects_that_a_full_list_lacks_are_removed() {
        let table = Table::default();
        table.put(row("acme", "a", "u-1", &[]));
        table.put(row("acme", "b", "u-2", &[]));
        assert!(!*table.0.filled.borrow());
        table.retain(&[("acme".to_owned(), "b".to_owned())].into());
        assert_eq!(table.all(), [row("acme", "b", "u-2", &[])]);
        assert!(table.wait_until_filled().await);
    }
}
