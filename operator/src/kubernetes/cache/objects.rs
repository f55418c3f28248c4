//! All objects of one kind: those that can be read, in the store that controllers use, and the others beside it.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource as _, ResourceExt};
use parking_lot::RwLock;

use super::guard::{Guarded, GuardedKind, Unreadable};

/// The objects of one kind that cannot be read.
type UnreadableObjects<K> = HashMap<ObjectRef<K>, Arc<Unreadable<K>>>;

/// All objects of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Objects<K: GuardedKind> {
    readable: Store<K>,
    /// Locked for writing while an object moves between the two, so that a reader who holds the lock finds every object
    /// exactly once.
    unreadable: Arc<RwLock<UnreadableObjects<K>>>,
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) enum Entry<K> {
    Readable(Arc<K>),
    Unreadable(Arc<Unreadable<K>>),
}

impl<K: GuardedKind> Entry<K> {
    pub(crate) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Readable(object) => object.meta(),
            Self::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    /// Returns the object, or its readable part.
    pub(crate) fn object(&self) -> Option<Arc<K>> {
        match self {
            Self::Readable(object) => Some(Arc::clone(object)),
            Self::Unreadable(unreadable) => unreadable.partial.clone(),
        }
    }
}

impl<K: GuardedKind> Objects<K> {
    /// Returns an empty set, and its writer.
    pub(super) fn new() -> (Self, ObjectWriter<K>) {
        let (store, writer) = reflector::store();
        let objects = Self { readable: store, unreadable: Arc::default() };
        (objects.clone(), ObjectWriter { readable: writer, objects, listed: HashMap::new() })
    }

    /// Returns a set that is filled, with nothing, and its writer.
    #[cfg(test)]
    pub(super) fn filled() -> (Self, ObjectWriter<K>) {
        let (objects, mut writer) = Self::new();
        writer.apply(Event::Init);
        writer.apply(Event::InitDone);
        (objects, writer)
    }

    /// Returns the store of the objects that can be read.
    pub(super) fn readable(&self) -> Store<K> {
        self.readable.clone()
    }

    /// Returns all objects at one time.
    pub(crate) fn all(&self) -> Vec<Entry<K>> {
        let unreadable = self.unreadable.read();
        let readable = self.readable.state().into_iter().map(Entry::Readable);
        readable.chain(unreadable.values().cloned().map(Entry::Unreadable)).collect()
    }

    /// Returns the object with this UID.
    pub(crate) fn with_uid(&self, uid: &str) -> Option<Entry<K>> {
        let unreadable = self.unreadable.read();
        let readable = self.readable.find(|object| object.meta().uid.as_deref() == Some(uid)).map(Entry::Readable);
        readable.or_else(|| {
            let found = unreadable.values().find(|object| object.metadata.uid.as_deref() == Some(uid));
            found.cloned().map(Entry::Unreadable)
        })
    }

    /// Returns the objects that cannot be read.
    pub(crate) fn unreadable(&self) -> Vec<Arc<Unreadable<K>>> {
        self.unreadable.read().values().cloned().collect()
    }
}

/// Applies the events of a watch to the objects of one kind.
pub(crate) struct ObjectWriter<K: GuardedKind> {
    readable: Writer<K>,
    objects: Objects<K>,
    /// Unreadable objects of a full list that has not ended yet.
    listed: UnreadableObjects<K>,
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
                self.listed.clear();
                self.readable.apply_watcher_event(&Event::Init);
                Event::Init
            }
            Event::InitApply(object) => {
                let metadata = metadata(&object);
                match object {
                    Guarded::Readable(object) => self.readable.apply_watcher_event(&Event::InitApply(*object)),
                    Guarded::Unreadable(object) => {
                        self.report(&object);
                        self.listed.insert(key(&*object), Arc::from(object));
                    }
                }
                Event::InitApply(metadata)
            }
            Event::InitDone => {
                let mut unreadable = self.objects.unreadable.write();
                self.readable.apply_watcher_event(&Event::InitDone);
                *unreadable = std::mem::take(&mut self.listed);
                Event::InitDone
            }
            Event::Apply(object) => {
                let metadata = metadata(&object);
                match object {
                    Guarded::Readable(object) => {
                        let mut unreadable = self.objects.unreadable.write();
                        unreadable.remove(&key(&*object));
                        self.readable.apply_watcher_event(&Event::Apply(*object));
                    }
                    Guarded::Unreadable(object) => {
                        self.report(&object);
                        let mut unreadable = self.objects.unreadable.write();
                        remove_readable(&mut self.readable, &self.objects.readable, &key(&*object));
                        unreadable.insert(key(&*object), Arc::from(object));
                    }
                }
                Event::Apply(metadata)
            }
            Event::Delete(object) => {
                let mut unreadable = self.objects.unreadable.write();
                unreadable.remove(&key(&object));
                remove_readable(&mut self.readable, &self.objects.readable, &key(&object));
                Event::Delete(metadata(&object))
            }
        }
    }

    /// Logs that an object cannot be read, once per version of its spec.
    fn report(&self, object: &Unreadable<K>) {
        let known = self.objects.unreadable.read().get(&key(object)).cloned();
        if known.is_some_and(|known| known.problem == object.problem && known.uid() == object.uid()) {
            return;
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let kind = K::kind(&());
        tracing::warn!(%kind, namespace, name, problem = object.problem, "an object cannot be read");
    }
}

fn metadata<K: GuardedKind>(object: &Guarded<K>) -> PartialObjectMeta<K> {
    object.meta().clone().into_response_partial()
}

fn key<K: GuardedKind>(object: &impl ResourceExt) -> ObjectRef<K> {
    let mut key = ObjectRef::new(&object.name_any());
    key.namespace = object.namespace();
    key
}

fn remove_readable<K: GuardedKind>(writer: &mut Writer<K>, store: &Store<K>, key: &ObjectRef<K>) {
    if let Some(object) = store.get(key) {
        writer.apply_watcher_event(&Event::Delete(Arc::unwrap_or_clone(object)));
    }
}
