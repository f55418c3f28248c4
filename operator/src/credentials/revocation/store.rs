//! Stores revocations. A revocation is written by compare-and-swap before it takes effect, and it never moves back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use parking_lot::RwLock;

use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::deletion::ProvenUnwanted;
use crate::kubernetes::labels;

const COMPONENT: &str = "revocations";

/// Why a revocation could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to read or write the revocations of tenant {tenant}")]
pub(crate) struct RevocationError {
    tenant: String,
    source: kube::Error,
}

/// All revocations, in Unix seconds by UID of the principal.
#[derive(Clone, Debug)]
pub(crate) struct Revocations {
    api: Api<ConfigMap>,
    cache: Arc<RwLock<HashMap<String, i64>>>,
}

impl Revocations {
    /// Creates a store in `namespace`, the operator's namespace.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), cache: Arc::default() }
    }

    /// Loads all revocations. A new leader must do so before it compiles a policy.
    pub(crate) async fn load(&self) -> Result<(), RevocationError> {
        let selector = format!("{},{}={COMPONENT}", labels::MANAGED_SELECTOR, labels::COMPONENT);
        let found = self
            .api
            .list(&ListParams::default().labels(&selector))
            .await
            .map_err(|source| RevocationError { tenant: "(all)".into(), source })?;
        let mut cache = self.cache.write();
        for (uid, until) in found.iter().flat_map(entries) {
            raise(&mut cache, &uid, until);
        }
        Ok(())
    }

    /// Returns the revocation of a principal: its tokens with `iat` at or before this second are refused.
    pub(crate) fn get(&self, principal_uid: &str) -> Option<i64> {
        self.cache.read().get(principal_uid).copied()
    }

    /// Moves the revocation of a principal to a later time, first in storage and then in memory. Returns whether it
    /// moved.
    ///
    /// Drops the revocations of principals for which `exists` returns false: their tokens identify no principal.
    pub(crate) async fn raise(
        &self,
        tenant: (&str, &str),
        principal_uid: &str,
        until: i64,
        exists: impl Fn(&str) -> bool,
    ) -> Result<bool, RevocationError> {
        if self.get(principal_uid).is_some_and(|known| known >= until) {
            return Ok(false);
        }
        loop {
            match self.write(tenant, principal_uid, until, &exists).await {
                Ok(()) => break,
                // Another writer was faster, so read again. In each round, at least one writer succeeds.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
                Err(source) => return Err(RevocationError { tenant: tenant.0.to_owned(), source }),
            }
        }
        raise(&mut self.cache.write(), principal_uid, until);
        Ok(true)
    }

    async fn write(
        &self,
        (tenant, tenant_uid): (&str, &str),
        principal: &str,
        until: i64,
        exists: &impl Fn(&str) -> bool,
    ) -> Result<(), kube::Error> {
        let name = config_map_name(tenant_uid);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let Some(mut found) = self.api.get_opt(&name).await? else {
            let new = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name),
                    labels: Some(labels::of_tenant(COMPONENT, tenant, tenant_uid)),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(principal.to_owned(), until.to_string())])),
                ..ConfigMap::default()
            };
            return self.api.create(&params, &new).await.map(|_| ());
        };
        let data = found.data.get_or_insert_default();
        let before = data.get(principal).and_then(|text| text.parse::<i64>().ok());
        if before.is_some_and(|before| before >= until) {
            return Ok(());
        }
        data.retain(|uid, _| exists(uid));
        data.insert(principal.to_owned(), until.to_string());
        self.api.replace(&name, &params, &found).await.map(|_| ())
    }

    /// Deletes the revocations of the deleted tenant that the proof is about. Its keys are deleted too, so none of its
    /// tokens is valid any more.
    pub(crate) async fn delete(&self, tenant: &str, proof: &ProvenUnwanted) -> Result<(), RevocationError> {
        match self.api.delete(&config_map_name(proof.owner_uid()), &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(source) => Err(RevocationError { tenant: tenant.to_owned(), source }),
        }
    }
}

fn config_map_name(tenant_uid: &str) -> String {
    format!("tenant-{tenant_uid}-revocations")
}

fn entries(map: &ConfigMap) -> impl Iterator<Item = (String, i64)> + '_ {
    map.data.iter().flatten().filter_map(|(uid, until)| Some((uid.clone(), until.parse().ok()?)))
}

/// Moves a revocation in the cache to a later time.
fn raise(cache: &mut HashMap<String, i64>, uid: &str, until: i64) {
    let revocation = cache.entry(uid.to_owned()).or_insert(until);
    *revocation = (*revocation).max(until);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_never_moves_back() {
        let mut cache = HashMap::new();
        raise(&mut cache, "p-1", 100);
        raise(&mut cache, "p-1", 50);
        assert_eq!(cache["p-1"], 100);
        raise(&mut cache, "p-1", 150);
        assert_eq!(cache["p-1"], 150);
    }

    #[test]
    fn invalid_entries_of_a_config_map_are_ignored() {
        let map = ConfigMap {
            data: Some(BTreeMap::from([("p-1".into(), "7".into()), ("p-2".into(), "soon".into())])),
            ..ConfigMap::default()
        };
        assert_eq!(entries(&map).collect::<Vec<_>>(), [("p-1".to_owned(), 7)]);
    }
}
