//! All objects of one kind: those that can be read, which controllers use, and the others.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource as _, ResourceExt};
use mcp_fleet_core::guard::{Guarded, GuardedKind, Unreadable};
use parking_lot::RwLock;

use super::table::{Key, Row, Table, key};
use super::writer::TableWriter;

/// Returns the claim on a host name, which is no name of a namespace.
fn hostname_claim(hostname: &str) -> String {
    format!("https://{hostname}")
}

/// Objects that cannot be read, by namespace and name.
type UnreadableObjects<K> = HashMap<Key, Arc<Unreadable<K>>>;

/// All objects of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Objects<K: GuardedKind> {
    table: Table<Entry<K>>,
    /// Those that cannot be read once more, so that nobody has to look for them among all others.
    unreadable: Arc<RwLock<UnreadableObjects<K>>>,
}

/// The objects of one kind that can be read.
#[derive(Clone, Debug)]
pub(crate) struct Readable<K: GuardedKind>(Table<Entry<K>>);

/// One object.
#[derive(Clone, Debug)]
pub(crate) enum Entry<K> {
    Readable(Arc<K>),
    Unreadable(Arc<Unreadable<K>>),
}

impl<K: GuardedKind> Entry<K> {
    /// Returns the object, or its readable part.
    pub(crate) fn object(&self) -> Option<Arc<K>> {
        match self {
            Self::Readable(object) => Some(Arc::clone(object)),
            Self::Unreadable(unreadable) => unreadable.partial.clone(),
        }
    }

    /// Returns the object, if it can be read.
    fn readable(self) -> Option<Arc<K>> {
        match self {
            Self::Readable(object) => Some(object),
            Self::Unreadable(_) => None,
        }
    }
}

impl<K> From<Guarded<K>> for Entry<K> {
    fn from(object: Guarded<K>) -> Self {
        match object {
            Guarded::Readable(object) => Self::Readable(Arc::from(object)),
            Guarded::Unreadable(object) => Self::Unreadable(Arc::from(object)),
        }
    }
}

impl<K: GuardedKind> Row for Entry<K> {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Readable(object) => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn claims(&self) -> Vec<String> {
        let Some(object) = self.object() else { return Vec::new() };
        let hostnames = object.claimed_hostnames().into_iter().map(|hostname| hostname_claim(&hostname));
        object.claimed_namespaces().into_iter().chain(hostnames).collect()
    }

    fn shared_status(&self) -> Vec<String> {
        // Not that of the `Arc`, which is a row too.
        self.object().map(|object| K::shared_status(&object)).unwrap_or_default()
    }
}

impl<K: GuardedKind> Objects<K> {
    /// Returns an empty set, and its writer.
    pub(super) fn new() -> (Self, ObjectWriter<K>) {
        let (table, unreadable) = (Table::default(), Arc::default());
        let writer = ObjectWriter { writer: TableWriter::new(table.clone()), unreadable: Arc::clone(&unreadable) };
        (Self { table, unreadable }, writer)
    }

    /// Returns a set that is filled, with nothing, and its writer.
    #[cfg(test)]
    pub(super) fn filled() -> (Self, ObjectWriter<K>) {
        let (objects, mut writer) = Self::new();
        writer.apply(Event::Init);
        writer.apply(Event::InitDone);
        (objects, writer)
    }

    /// Returns the objects that can be read.
    pub(super) fn readable(&self) -> Readable<K> {
        Readable(self.table.clone())
    }

    /// Returns all objects at one time.
    pub(crate) fn all(&self) -> Vec<Entry<K>> {
        self.table.all()
    }

    /// Returns the objects in a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Entry<K>> {
        self.table.in_namespace(namespace)
    }

    /// Returns the object with this name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Entry<K>> {
        self.table.get(namespace, name)
    }

    /// Returns the object with this UID.
    pub(crate) fn with_uid(&self, uid: &str) -> Option<Entry<K>> {
        self.table.with_uid(uid)
    }

    /// Returns the objects that claim a namespace.
    pub(super) fn claiming(&self, namespace: &str) -> Vec<Entry<K>> {
        self.table.claiming(namespace)
    }

    /// Returns the objects that claim a host name.
    pub(super) fn claiming_hostname(&self, hostname: &str) -> Vec<Entry<K>> {
        self.table.claiming(&hostname_claim(hostname))
    }

    /// Returns the table of all objects.
    pub(crate) fn table(&self) -> &Table<Entry<K>> {
        &self.table
    }

    /// Returns the objects that cannot be read.
    pub(crate) fn unreadable(&self) -> Vec<Arc<Unreadable<K>>> {
        self.unreadable.read().values().cloned().collect()
    }

    /// Waits until a full list was read.
    pub(super) async fn wait_until_filled(&self) -> bool {
        self.table.wait_until_filled().await
    }
}

impl<K: GuardedKind> Readable<K> {
    /// Returns all objects at one time.
    pub(crate) fn state(&self) -> Vec<Arc<K>> {
        self.0.all().into_iter().filter_map(Entry::readable).collect()
    }

    /// Returns the object that is referred to.
    pub(crate) fn get(&self, reference: &ObjectRef<K>) -> Option<Arc<K>> {
        self.0.get(reference.namespace.as_deref().unwrap_or_default(), &reference.name)?.readable()
    }

    /// Returns the objects in a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.0.in_namespace(namespace).into_iter().filter_map(Entry::readable).collect()
    }

    /// Returns the object with this UID.
    pub(crate) fn with_uid(&self, uid: &str) -> Option<Arc<K>> {
        self.0.with_uid(uid)?.readable()
    }

    /// Returns the number of all objects, readable or not.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Applies the events of a watch to the objects of one kind.
pub(crate) struct ObjectWriter<K: GuardedKind> {
    writer: TableWriter<Entry<K>>,
    unreadable: Arc<RwLock<UnreadableObjects<K>>>,
}

impl<K: GuardedKind> ObjectWriter<K> {
    /// Puts an object in, as a watch would.
    #[cfg(test)]
    pub(crate) fn put(&mut self, object: K) {
        self.apply(Event::Apply(Guarded::Readable(Box::new(object))));
    }

    /// Applies an event. Returns the objects whose change matters to others, as [`TableWriter::apply`] does.
    pub(super) fn apply(&mut self, event: Event<Guarded<K>>) -> Vec<Entry<K>> {
        let event = match event {
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(self.entry(object)),
            Event::InitDone => {
                self.unreadable.write().retain(|key, _| self.writer.lists(key));
                Event::InitDone
            }
            Event::Apply(object) => Event::Apply(self.entry(object)),
            Event::Delete(object) => {
                self.unreadable.write().remove(&key(object.meta()));
                Event::Delete(Entry::from(object))
            }
        };
        self.writer.apply(event)
    }

    /// Returns an object as it is stored. Records whether it can be read.
    fn entry(&self, object: Guarded<K>) -> Entry<K> {
        let (key, entry) = (key(object.meta()), Entry::from(object));
        if let Entry::Unreadable(object) = &entry {
            self.report(&key, object);
            self.unreadable.write().insert(key, Arc::clone(object));
        } else {
            self.unreadable.write().remove(&key);
        }
        entry
    }

    /// Logs that an object cannot be read, once per version of its spec.
    fn report(&self, key: &Key, object: &Unreadable<K>) {
        let known = self.unreadable.read().get(key).cloned();
        if known.is_some_and(|known| known.problem == object.problem && known.uid() == object.uid()) {
            return;
        }
        let (namespace, name) = key;
        let kind = K::kind(&());
        tracing::warn!(%kind, namespace, name, problem = object.problem, "an object cannot be read");
    }
}
