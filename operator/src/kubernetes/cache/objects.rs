//! All objects of one kind: those that can be read, which controllers use, and the others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource as _, ResourceExt};
use parking_lot::RwLock;

use super::guard::{Guarded, GuardedKind, Unreadable};
use super::table::{Row, Table, key, version};

/// Objects that cannot be read, by namespace and name.
type UnreadableObjects<K> = HashMap<(String, String), Arc<Unreadable<K>>>;

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

impl<K: GuardedKind> Row for Entry<K> {
    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Readable(object) => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn claims(&self) -> Vec<String> {
        self.object().map(|object| object.claimed_namespaces()).unwrap_or_default()
    }
}

impl<K: GuardedKind> Objects<K> {
    /// Returns an empty set, and its writer.
    pub(super) fn new() -> (Self, ObjectWriter<K>) {
        let objects = Self { table: Table::default(), unreadable: Arc::default() };
        (objects.clone(), ObjectWriter { objects, listed: HashSet::new(), newest_listed: 0 })
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
    objects: Objects<K>,
    /// The objects of a full list that has not ended yet.
    listed: HashSet<(String, String)>,
    /// The newest version in that list.
    newest_listed: u64,
}

impl<K: GuardedKind> ObjectWriter<K> {
    /// Puts an object in, as a watch would.
    #[cfg(test)]
    pub(crate) fn put(&mut self, object: K) {
        self.apply(Event::Apply(Guarded::Readable(Box::new(object))));
    }

    /// Applies an event. Returns the same event with the metadata of the object.
    pub(super) fn apply(&mut self, event: Event<Guarded<K>>) -> Event<PartialObjectMeta<K>> {
        match event {
            Event::Init => {
                (self.listed, self.newest_listed) = (HashSet::new(), 0);
                Event::Init
            }
            Event::InitApply(object) => {
                let metadata = metadata(&object);
                self.listed.insert(key(&metadata.metadata));
                self.newest_listed = self.newest_listed.max(version(&metadata.metadata));
                self.store(object);
                Event::InitApply(metadata)
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.objects.table.retain(&listed);
                self.objects.unreadable.write().retain(|key, _| listed.contains(key));
                // Not before: a part of a list says nothing about the rest.
                self.objects.table.advance(self.newest_listed);
                Event::InitDone
            }
            Event::Apply(object) => {
                let metadata = metadata(&object);
                self.store(object);
                self.objects.table.advance(version(&metadata.metadata));
                Event::Apply(metadata)
            }
            Event::Delete(object) => {
                let metadata = metadata(&object);
                self.objects.table.remove(&metadata.metadata);
                self.objects.unreadable.write().remove(&key(&metadata.metadata));
                self.objects.table.advance(version(&metadata.metadata));
                Event::Delete(metadata)
            }
        }
    }

    fn store(&self, object: Guarded<K>) {
        let key = key(object.meta());
        let entry = match object {
            Guarded::Readable(object) => {
                self.objects.unreadable.write().remove(&key);
                Entry::Readable(Arc::from(object))
            }
            Guarded::Unreadable(object) => {
                self.report(&key, &object);
                let object: Arc<Unreadable<K>> = Arc::from(object);
                self.objects.unreadable.write().insert(key, Arc::clone(&object));
                Entry::Unreadable(object)
            }
        };
        self.objects.table.put(entry);
    }

    /// Logs that an object cannot be read, once per version of its spec.
    fn report(&self, key: &(String, String), object: &Unreadable<K>) {
        let known = self.objects.unreadable.read().get(key).cloned();
        if known.is_some_and(|known| known.problem == object.problem && known.uid() == object.uid()) {
            return;
        }
        let (namespace, name) = key;
        let kind = K::kind(&());
        tracing::warn!(%kind, namespace, name, problem = object.problem, "an object cannot be read");
    }
}

fn metadata<K: GuardedKind>(object: &Guarded<K>) -> PartialObjectMeta<K> {
    object.meta().clone().into_response_partial()
}
