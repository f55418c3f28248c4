//! An index of the objects that the operator made: which exist for a tenant or a server, which labels they had before
//! someone removed them, and which are known to be as wanted, so that they need not be read again.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcp_fleet_core::labels::{self, OwnerLabels};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;

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
    pub labels: Arc<OwnerLabels>,
}

/// A version of an object. It changes with everything that the operator writes, and not with the status of an object
/// whose `metadata.generation` counts its specs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version(u64);

impl Version {
    /// Returns the version of an object. `annotation` is the only annotation that belongs to it.
    pub(crate) fn of(metadata: &ObjectMeta, annotation: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (&metadata.uid, metadata.generation, metadata.deletion_timestamp.is_some()).hash(&mut hasher);
        if metadata.generation.is_none() {
            metadata.resource_version.hash(&mut hasher);
        }
        metadata.labels.hash(&mut hasher);
        metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation)).hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Version {
    /// Returns the version of a `ResourceQuota`, which has no generation. Its counts are not part of it, but what is counted.
    pub(crate) fn of_quota(metadata: &ObjectMeta, object: &Value, annotation: &str) -> Self {
        let stable = ObjectMeta { resource_version: None, ..metadata.clone() };
        let counted = |field: &str| {
            let counts = object["status"][field].as_object();
            counts.into_iter().flatten().map(|(name, _)| name).collect::<BTreeSet<_>>()
        };
        let mut hasher = DefaultHasher::new();
        Self::of(&stable, annotation).0.hash(&mut hasher);
        (object["spec"].to_string(), counted("hard"), counted("used")).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What the index knows of an object that is to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge<S> {
    /// The object does not exist.
    Missing,
    /// The object is as wanted, and has this state if it is of a kind with one.
    AsWanted(Option<S>),
    /// The object has to be read.
    Unknown,
}

/// An object that was found to be as wanted, or written so.
#[derive(Clone, Copy, Debug)]
struct Verified {
    version: Version,
    /// Digest of what was wanted.
    digest: u128,
}

/// What is stored of an object.
#[derive(Debug)]
struct Slot<S> {
    /// What the watch delivered. None before it delivered an object that was written here.
    seen: Option<(Meta, Version)>,
    verified: Option<Verified>,
    state: Option<S>,
}

impl<S> Default for Slot<S> {
    fn default() -> Self {
        Self { seen: None, verified: None, state: None }
    }
}

#[derive(Debug)]
struct State<S> {
    objects: HashMap<Arc<Key>, Slot<S>>,
    /// Objects by a label with a UID.
    by_owner: HashMap<(&'static str, String), HashSet<Arc<Key>>>,
}

/// The index. `S` is the state of an object that is kept with it.
#[derive(Debug)]
pub(crate) struct Owned<S> {
    state: RwLock<State<S>>,
    /// Kinds of which no full list has been read yet.
    unfilled: watch::Sender<BTreeSet<String>>,
}

/// Labels by which objects are found.
const OWNERS: [&str; 2] = [labels::TENANT_UID, labels::SERVER_UID];

impl<S> Default for Owned<S> {
    fn default() -> Self {
        let state = State { objects: HashMap::new(), by_owner: HashMap::new() };
        Self { state: RwLock::new(state), unfilled: watch::Sender::default() }
    }
}

impl<S: Copy> Owned<S> {
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

    /// Adds an object that the watch delivered. Returns the labels that it had before, if it was known.
    pub(crate) fn put(
        &self,
        key: Key,
        mut meta: Meta,
        version: Version,
        new_state: Option<S>,
    ) -> Option<Arc<OwnerLabels>> {
        let mut state = self.state.write();
        if let Some(sibling) = state.sibling(&meta) {
            meta.labels = sibling;
        }
        let before = state.unindex(&key);
        let key = state.objects.get_key_value(&key).map_or_else(|| Arc::new(key), |(key, _)| Arc::clone(key));
        for owner in OWNERS {
            if let Some(uid) = meta.labels.get(owner) {
                state.by_owner.entry((owner, uid.to_owned())).or_default().insert(Arc::clone(&key));
            }
        }
        let slot = state.objects.entry(key).or_default();
        slot.seen = Some((meta, version));
        slot.state = new_state.or(slot.state);
        before
    }

    /// Removes an object. Returns the labels that it had, if it was known.
    pub(crate) fn remove(&self, key: &Key) -> Option<Arc<OwnerLabels>> {
        let mut state = self.state.write();
        let before = state.unindex(key);
        state.objects.remove(key);
        before
    }

    /// Removes the objects of a kind that are not in `listed`, a full list. From then on the kind is filled. Returns the
    /// labels of the removed objects.
    pub(crate) fn retain(&self, kind: &str, listed: &HashSet<Key>) -> Vec<Arc<OwnerLabels>> {
        let gone = self.retain_if(|key| key.kind != kind || listed.contains(key));
        self.unfilled.send_if_modified(|unfilled| unfilled.remove(kind));
        gone
    }

    /// Removes the objects for which a condition does not hold. Returns their labels.
    pub(super) fn retain_if(&self, condition: impl Fn(&Key) -> bool) -> Vec<Arc<OwnerLabels>> {
        let mut state = self.state.write();
        let gone: Vec<Arc<Key>> = state.objects.keys().filter(|key| !condition(key)).cloned().collect();
        let mut labels = Vec::new();
        for key in gone {
            labels.extend(state.unindex(&key));
            state.objects.remove(&key);
        }
        labels
    }

    /// Records that an object of this version is as wanted with a digest, and has this state.
    pub(super) fn verify_with(&self, key: Key, version: Version, digest: u128, new_state: Option<S>) {
        let slot = Slot { seen: None, verified: Some(Verified { version, digest }), state: new_state };
        let mut state = self.state.write();
        let before = state.objects.entry(Arc::new(key)).or_default();
        *before = Slot { seen: before.seen.take(), ..slot };
    }

    /// Records that nothing is known of an object.
    pub(super) fn doubt(&self, key: Key) {
        self.state.write().objects.entry(Arc::new(key)).or_default().verified = None;
    }

    /// Whether an object is in the index.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.state.read().objects.get(key).is_some_and(|slot| slot.seen.is_some())
    }

    /// Whether the watch has delivered an object with this version and state already.
    pub(super) fn shows(&self, key: &Key, version: Version, state: Option<S>) -> bool
    where
        S: PartialEq,
    {
        let objects = self.state.read();
        let slot = objects.objects.get(key);
        slot.is_some_and(|slot| slot.seen.as_ref().is_some_and(|(_, seen)| *seen == version) && slot.state == state)
    }

    /// Whether the newest version of an object that the watch has delivered is this one.
    pub(super) fn has_version(&self, key: &Key, version: Version) -> bool {
        let state = self.state.read();
        let seen = state.objects.get(key).and_then(|slot| slot.seen.as_ref());
        seen.is_some_and(|(_, seen)| *seen == version)
    }

    /// Returns the objects on which a label has a value: the UID of a tenant or of a server.
    pub(crate) fn with_label(&self, label: &'static str, uid: &str) -> Vec<(Key, Meta)> {
        let state = self.state.read();
        let found = state.by_owner.get(&(label, uid.to_owned())).into_iter().flatten();
        found.filter_map(|key| Some(((**key).clone(), state.objects.get(key)?.seen.as_ref()?.0.clone()))).collect()
    }

    /// Returns what is known of an object that is wanted with a digest.
    pub(crate) fn knowledge(&self, key: &Key, digest: u128) -> Knowledge<S> {
        let state = self.state.read();
        let Some(Slot { seen, verified, state: kept }) = state.objects.get(key) else { return Knowledge::Missing };
        let is_as_wanted = verified.is_some_and(|verified| {
            // An object that was just written may not have been delivered yet. If it is deleted, the watch delivers that.
            verified.digest == digest && seen.as_ref().is_none_or(|(_, version)| *version == verified.version)
        });
        if is_as_wanted { Knowledge::AsWanted(*kept) } else { Knowledge::Unknown }
    }

    /// Records that an object of this version is as wanted with a digest.
    pub(crate) fn verify(&self, key: Key, version: Version, digest: u128, new_state: Option<S>) {
        let mut state = self.state.write();
        let slot = state.objects.entry(Arc::new(key)).or_default();
        slot.verified = Some(Verified { version, digest });
        // What the watch delivers is newer.
        if slot.state.is_none() {
            slot.state = new_state;
        }
    }
}

impl<S> State<S> {
    /// Removes an object from the owners' lists. Returns its labels.
    fn unindex(&mut self, key: &Key) -> Option<Arc<OwnerLabels>> {
        let labels = self.objects.get(key)?.seen.as_ref().map(|(meta, _)| Arc::clone(&meta.labels))?;
        for owner in OWNERS {
            let Some(uid) = labels.get(owner) else { continue };
            let entry = (owner, uid.to_owned());
            if let Some(keys) = self.by_owner.get_mut(&entry) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(&entry);
                }
            }
        }
        Some(labels)
    }

    /// Returns equal labels of another object of the same server, so that they are in memory once.
    fn sibling(&self, meta: &Meta) -> Option<Arc<OwnerLabels>> {
        let uid = meta.labels.get(labels::SERVER_UID)?;
        let keys = self.by_owner.get(&(labels::SERVER_UID, uid.to_owned()))?;
        let other = &self.objects.get(keys.iter().next()?)?.seen.as_ref()?.0.labels;
        (*other == meta.labels).then(|| Arc::clone(other))
    }
}

/// Returns the owner labels of an object.
pub(super) fn owner_labels(metadata: &ObjectMeta) -> Arc<OwnerLabels> {
    Arc::new(metadata.labels.as_ref().map(OwnerLabels::from).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use mcp_fleet_core::labels;

    use super::*;

    fn key(kind: &str, name: &str) -> Key {
        Key { kind: kind.into(), namespace: "acme-mcp".into(), name: name.into() }
    }

    fn meta(tenant: &str) -> Meta {
        Meta { uid: "o-1".into(), labels: Arc::new((&labels::of_tenant("gateway", "acme", tenant)).into()) }
    }

    fn put(owned: &Owned<()>, key: Key, meta: Meta) -> Option<Arc<OwnerLabels>> {
        owned.put(key, meta, Version(1), None)
    }

    #[test]
    fn labels_that_were_removed_are_returned_once() {
        let owned = Owned::<()>::default();
        put(&owned, key("Service", "gateway"), meta("u-1"));
        let before = put(&owned, key("Service", "gateway"), Meta { uid: "o-1".into(), labels: Arc::default() });
        assert_eq!(before.unwrap().get(labels::TENANT_UID), Some("u-1"));
    }

    #[test]
    fn objects_that_a_full_list_does_not_contain_are_removed() {
        let owned = Owned::<()>::default();
        put(&owned, key("Service", "gateway"), meta("u-1"));
        put(&owned, key("Deployment", "gateway"), meta("u-1"));
        assert_eq!(owned.retain("Service", &HashSet::new()).len(), 1);
        assert_eq!(owned.with_label(labels::TENANT_UID, "u-1").len(), 1);
    }

    #[test]
    fn the_index_is_filled_once_every_kind_was_listed() {
        let owned = Owned::<()>::default();
        owned.expect("Service");
        owned.expect("Deployment");
        put(&owned, key("Service", "gateway"), meta("u-1"));
        let filled = || owned.wait_until_filled().now_or_never();
        owned.retain("Service", &[key("Service", "gateway")].into());
        assert_eq!(filled(), None);
        owned.retain("Deployment", &HashSet::new());
        assert_eq!(filled(), Some(true));
    }

    #[test]
    fn an_object_is_as_wanted_while_it_has_the_version_that_was_verified() {
        let (owned, service) = (Owned::<()>::default(), || key("Service", "gateway"));
        assert_eq!(owned.knowledge(&service(), 7), Knowledge::Missing);
        owned.verify(service(), Version(2), 7, None);
        assert_eq!(owned.knowledge(&service(), 7), Knowledge::AsWanted(None), "the watch has not delivered it yet");
        assert!(!owned.has(&service()));
        owned.put(service(), meta("u-1"), Version(1), None);
        assert_eq!(owned.knowledge(&service(), 7), Knowledge::Unknown, "the watch delivers an older version");
        owned.put(service(), meta("u-1"), Version(2), None);
        assert_eq!(owned.knowledge(&service(), 7), Knowledge::AsWanted(None));
        assert_eq!(owned.knowledge(&service(), 8), Knowledge::Unknown, "something else is wanted");
        owned.put(service(), meta("u-1"), Version(3), None);
        assert_eq!(owned.knowledge(&service(), 7), Knowledge::Unknown, "someone changed it");
        owned.verify(service(), Version(3), 7, None);
        owned.remove(&service());
        assert_eq!(owned.knowledge(&service(), 7), Knowledge::Missing, "someone deleted it");
    }

    #[test]
    fn the_status_of_an_object_with_a_generation_does_not_change_its_version() {
        let object = |generation, version: &str, digest: &str| ObjectMeta {
            uid: Some("o-1".into()),
            generation,
            resource_version: Some(version.into()),
            annotations: Some([("applied".to_owned(), digest.to_owned()), ("other".into(), version.into())].into()),
            ..ObjectMeta::default()
        };
        let version = |generation, version, digest| Version::of(&object(generation, version, digest), "applied");
        assert_eq!(version(Some(1), "5", "a"), version(Some(1), "6", "a"));
        assert_ne!(version(Some(1), "5", "a"), version(Some(2), "6", "a"));
        assert_ne!(version(Some(1), "5", "a"), version(Some(1), "6", "b"));
        assert_ne!(version(None, "5", "a"), version(None, "6", "a"));
    }
}
