//! Deletes what the operator made. Every deletion of a prune or a teardown goes through here and takes a proof that the
//! owner does not want the object: the cache can lag, and what a deletion destroys does not come back.
//!
//! Start at [`OwnerState::read`], which is the only source of proofs. Read an owner only when something of it is about to
//! be deleted.

use kube::api::{ApiResource, DeleteParams, DynamicObject, Preconditions};
use kube::{Api, Client, Resource};
use mcp_fleet_core::labels;

use super::apply::ApplyError;
use super::cache::{Key, Meta, resource_of};

/// Proof, from a consistent read, that an owner does not want some of the objects that were made for it.
#[derive(Debug)]
pub(crate) struct ProvenUnwanted {
    owner_uid: String,
}

impl ProvenUnwanted {
    /// Returns the UID of the owner.
    pub(crate) fn owner_uid(&self) -> &str {
        &self.owner_uid
    }

    /// Whether the labels of an object name this owner.
    fn covers(&self, meta: &Meta) -> bool {
        [labels::TENANT_UID, labels::SERVER_UID].iter().any(|key| meta.labels.get(key) == Some(self.owner_uid()))
    }
}

/// The state of an owner, as a consistent read of the API server found it.
#[derive(Debug)]
pub(crate) struct OwnerState {
    uid: String,
    /// The object, if one has the name and the UID of the owner.
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    generation: Option<i64>,
    is_being_deleted: bool,
}

impl OwnerState {
    /// Reads the owner of kind `K` with this name and UID. An object of the same name with another UID is another owner.
    pub(crate) async fn read<K>(
        client: &Client,
        namespace: Option<&str>,
        name: &str,
        uid: &str,
    ) -> Result<Self, ApplyError>
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        let api = api(client, &resource, namespace);
        // Without a resource version, the API server answers with the newest state, not from a cache.
        let found = api.get_metadata_opt(name).await.map_err(failed("read", &resource, namespace, name))?;
        let live = found.filter(|found| found.metadata.uid.as_deref() == Some(uid)).map(|found| Live {
            generation: found.metadata.generation,
            is_being_deleted: found.metadata.deletion_timestamp.is_some(),
        });
        Ok(Self { uid: uid.to_owned(), live })
    }

    /// Returns a proof if the owner no longer exists.
    pub(crate) fn gone(&self) -> Option<ProvenUnwanted> {
        self.prove(self.live.is_none())
    }

    /// Returns a proof if the owner no longer exists, or is being deleted and its spec is that of `generation`.
    pub(crate) fn torn_down(&self, generation: Option<i64>) -> Option<ProvenUnwanted> {
        let deleted = self.live.as_ref().is_none_or(|live| live.is_being_deleted && live.generation == generation);
        self.prove(deleted)
    }

    /// Returns a proof if the owner exists and its spec is that of `generation`. Then what was rendered from that
    /// generation is all that the owner wants.
    pub(crate) fn not_declared(&self, generation: Option<i64>) -> Option<ProvenUnwanted> {
        let live = self.live.as_ref();
        self.prove(live.is_some_and(|live| !live.is_being_deleted && live.generation == generation))
    }

    fn prove(&self, unwanted: bool) -> Option<ProvenUnwanted> {
        unwanted.then(|| ProvenUnwanted { owner_uid: self.uid.clone() })
    }
}

/// Deletes an object by name, and with a UID only if the object has that UID. An object that does not exist is fine.
pub(crate) async fn delete(
    client: &Client,
    _proof: &ProvenUnwanted,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    uid: Option<&str>,
) -> Result<(), ApplyError> {
    let mut params = DeleteParams::background();
    if let Some(uid) = uid {
        params = params.preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    }
    match api(client, resource, namespace).delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(failed("delete", resource, namespace, name)(source)),
    }
}

/// Deletes objects of the owner that the proof is about, network policies last: no pod may lose its restrictions first.
pub(crate) async fn delete_owned(
    client: &Client,
    proof: &ProvenUnwanted,
    mut owned: Vec<(Key, Meta)>,
) -> Result<(), ApplyError> {
    owned.sort_by_key(|(key, _)| key.kind == "NetworkPolicy");
    for (key, meta) in owned {
        if !proof.covers(&meta) {
            return Err(ApplyError::NotOurs { object: key.to_string() });
        }
        let Some(resource) = resource_of(&key.kind) else { continue };
        tracing::info!(object = %key, "deleting an object that its owner no longer wants");
        delete(client, proof, &resource, Some(&key.namespace), &key.name, Some(&meta.uid)).await?;
    }
    Ok(())
}

fn api(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

fn failed(
    verb: &'static str,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
) -> impl Fn(kube::Error) -> ApplyError {
    let object = format!("{} {}/{name}", resource.kind, namespace.unwrap_or(""));
    move |source| ApplyError::Api { verb, object: object.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(live: Option<(i64, bool)>) -> OwnerState {
        let live = live.map(|(generation, is_being_deleted)| Live { generation: Some(generation), is_being_deleted });
        OwnerState { uid: "s-1".into(), live }
    }

    #[test]
    fn only_an_owner_that_does_not_exist_is_gone() {
        assert_eq!(state(None).gone().unwrap().owner_uid(), "s-1");
        assert!(state(Some((1, false))).gone().is_none());
        assert!(state(Some((1, true))).gone().is_none(), "its own teardown is under way");
    }

    #[test]
    fn an_owner_is_torn_down_only_as_it_is_written_now() {
        assert!(state(None).torn_down(Some(1)).is_some());
        assert!(state(Some((2, true))).torn_down(Some(2)).is_some());
        assert!(state(Some((3, true))).torn_down(Some(2)).is_none());
        assert!(state(Some((2, false))).torn_down(Some(2)).is_none());
    }

    #[test]
    fn an_owner_that_changed_may_want_more_than_was_rendered() {
        assert!(state(Some((2, false))).not_declared(Some(2)).is_some());
        assert!(state(Some((3, false))).not_declared(Some(2)).is_none());
        assert!(state(Some((2, true))).not_declared(Some(2)).is_none());
        assert!(state(None).not_declared(Some(2)).is_none());
    }

    #[test]
    fn a_proof_covers_only_objects_of_its_owner() {
        let proof = state(None).gone().unwrap();
        let labelled = |key: &str, uid: &str| Meta {
            uid: "o-1".into(),
            labels: std::sync::Arc::new((&labels::Labels::from([(key.to_owned(), uid.to_owned())])).into()),
        };
        assert!(proof.covers(&labelled(labels::SERVER_UID, "s-1")));
        assert!(!proof.covers(&labelled(labels::SERVER_UID, "s-2")));
        assert!(!proof.covers(&labelled(labels::PRINCIPAL_UID, "s-1")));
    }
}
