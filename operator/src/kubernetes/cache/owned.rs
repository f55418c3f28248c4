//! An index over the metadata of what we made: which objects exist for a tenant or a server, and what their labels
//! were before someone took them off.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::kubernetes::labels::Labels;

/// Which object: kind, namespace (empty if it has none), name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    objects: RwLock<HashMap<Key, Meta>>,
}

impl Owned {
    /// Puts an object in. Answers the labels it had before, if it was known.
    pub(crate) fn put(&self, key: Key, meta: Meta) -> Option<Labels> {
        self.objects.write().insert(key, meta).map(|before| before.labels)
    }

    /// Takes an object out. Answers the labels it had, if it was known.
    pub(crate) fn take(&self, key: &Key) -> Option<Labels> {
        self.objects.write().remove(key).map(|before| before.labels)
    }

    /// Takes out every object of a kind that is not in `present`, after a full list. Answers their labels.
    pub(crate) fn retain(&self, kind: &str, present: &[Key]) -> Vec<Labels> {
        let mut gone = Vec::new();
        self.objects.write().retain(|key, meta| {
            let keep = key.kind != kind || present.contains(key);
            if !keep {
                gone.push(std::mem::take(&mut meta.labels));
            }
            keep
        });
        gone
    }

    /// Whether an object is there.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.objects.read().contains_key(key)
    }

    /// The objects that carry a UID label.
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
    use super::*;
    use crate::kubernetes::labels;

    fn key(kind: &str, name: &str) -> Key {
        Key { kind: kind.into(), namespace: "acme-mcp".into(), name: name.into() }
    }

    fn meta(tenant: &str) -> Meta {
        Meta { uid: "o-1".into(), labels: labels::of_tenant("gateway", "acme", tenant) }
    }

    #[test]
    fn labels_that_were_taken_off_are_remembered_once() {
        let owned = Owned::default();
        owned.put(key("Service", "gateway"), meta("u-1"));
        let before = owned.put(key("Service", "gateway"), Meta { uid: "o-1".into(), labels: Labels::new() });
        assert_eq!(before.unwrap()[labels::TENANT_UID], "u-1");
    }

    #[test]
    fn what_a_full_list_does_not_hold_is_gone() {
        let owned = Owned::default();
        owned.put(key("Service", "gateway"), meta("u-1"));
        owned.put(key("Deployment", "gateway"), meta("u-1"));
        assert_eq!(owned.retain("Service", &[]).len(), 1);
        assert_eq!(owned.with_label(labels::TENANT_UID, "u-1").len(), 1);
    }
}
