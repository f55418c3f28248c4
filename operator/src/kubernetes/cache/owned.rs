//! An index of the objects that the operator made: which exist for a tenant or a server, and which labels they had before
//! someone removed them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::kubernetes::labels::Labels;

/// Identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub kind: String,
    /// Namespace; empty if the kind has none.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub uid: String,
    pub labels: Labels,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    objects: RwLock<HashMap<Key, Meta>>,
    /// Kinds of which no full list has been read yet.
    unfilled: watch::Sender<BTreeSet<String>>,
}

impl Owned {
    /// Declares that a kind belongs to the index. The index is not filled before the first full list of that kind.
    pub(crate) fn expect(&self, kind: &str) {
        self.unfilled.send_modify(|unfilled| {
            unfilled.insert(kind.to_owned());
        });
    }

    /// Waits until a full list of every expected kind was read.
    pub(crate) async fn wait_until_filled(&self) -> bool {
        self.unfilled.subscribe().wait_for(BTreeSet::is_empty).await.is_ok()
    }

    /// Adds an object. Returns the labels that it had before, if it was known.
    pub(crate) fn put(&self, key: Key, meta: Meta) -> Option<Labels> {
        self.objects.write().insert(key, meta).map(|before| before.labels)
    }

    /// Removes an object. Returns the labels that it had, if it was known.
    pub(crate) fn remove(&self, key: &Key) -> Option<Labels> {
        self.objects.write().remove(key).map(|before| before.labels)
    }

    /// Removes the objects of a kind that are not in `listed`, a full list. From then on the kind is filled. Returns the
    /// labels of the removed objects.
    pub(crate) fn retain(&self, kind: &str, listed: &[Key]) -> Vec<Labels> {
        let mut gone = Vec::new();
        self.objects.write().retain(|key, meta| {
            let keep = key.kind != kind || listed.contains(key);
            if !keep {
                gone.push(std::mem::take(&mut meta.labels));
            }
            keep
        });
        self.unfilled.send_if_modified(|unfilled| unfilled.remove(kind));
        gone
    }

    /// Whether an object is in the index.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.objects.read().contains_key(key)
    }

    /// Returns the objects on which a label has a value, usually a UID.
    pub(crate) fn with_label(&self, label: &str, uid: &str) -> Vec<(Key, Meta)> {
        let objects = self.objects.read();
        objects
            .iter()
            .filter(|(_, meta)| meta.labels.get(label).is_some_and(|found| found == uid))
            .map(|(key, meta)| (key.clone(), meta.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::kubernetes::labels;

    fn key(kind: &str, name: &str) -> Key {
        Key { kind: kind.into(), namespace: "acme-mcp".into(), name: name.into() }
    }

    fn meta(tenant: &str) -> Meta {
        Meta { uid: "o-1".into(), labels: labels::of_tenant("gateway", "acme", tenant) }
    }

    #[test]
    fn labels_that_were_removed_are_returned_once() {
        let owned = Owned::default();
        owned.put(key("Service", "gateway"), meta("u-1"));
        let before = owned.put(key("Service", "gateway"), Meta { uid: "o-1".into(), labels: Labels::new() });
        assert_eq!(before.unwrap()[labels::TENANT_UID], "u-1");
    }

    #[test]
    fn objects_that_a_full_list_does_not_contain_are_removed() {
        let owned = Owned::default();
        owned.put(key("Service", "gateway"), meta("u-1"));
        owned.put(key("Deployment", "gateway"), meta("u-1"));
        assert_eq!(owned.retain("Service", &[]).len(), 1);
        assert_eq!(owned.with_label(labels::TENANT_UID, "u-1").len(), 1);
    }

    #[test]
    fn the_index_is_filled_once_every_kind_was_listed() {
        let owned = Owned::default();
        owned.expect("Service");
        owned.expect("Deployment");
        owned.put(key("Service", "gateway"), meta("u-1"));
        let filled = || owned.wait_until_filled().now_or_never();
        owned.retain("Service", &[key("Service", "gateway")]);
        assert_eq!(filled(), None);
        owned.retain("Deployment", &[]);
        assert_eq!(filled(), Some(true));
    }
}
