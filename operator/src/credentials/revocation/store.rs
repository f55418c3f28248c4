//! Stores revocations. A revocation is written by compare-and-swap before it takes effect, and it never moves back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use mcp_fleet_core::labels;
use parking_lot::RwLock;

use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::deletion::ProvenUnwanted;

const COMPONENT: &str = "revocations";

/// Why a revocation could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to read or write the revocations of tenant {tenant}")]
pub(crate) struct RevocationError {
    tenant: String,
    source: kube::Error,
}

/// What follows the UID of a principal in the key of its name.
const NAME: &str = ".name";

/// All revocations, in Unix seconds by UID of the principal.
///
/// The name of the principal is stored too, because its UID says nothing in a cluster into which the tenant is restored.
#[derive(Clone, Debug)]
pub(crate) struct Revocations {
    api: Api<ConfigMap>,
    cache: Arc<RwLock<HashMap<String, i64>>>,
    /// What each tenant's `ConfigMap` holds, as it was last read or written; by UID of the tenant.
    maps: Arc<RwLock<HashMap<String, ConfigMap>>>,
}

/// A principal whose tokens are revoked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revoked<'a> {
    pub uid: &'a str,
    pub name: &'a str,
    /// Tokens with `iat` at or before this second are refused.
    pub until: i64,
}

impl Revocations {
    /// Creates a store in `namespace`, the operator's namespace.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), cache: Arc::default(), maps: Arc::default() }
    }

    /// Loads all revocations. A new leader must do so before it compiles a policy.
    pub(crate) async fn load(&self) -> Result<(), RevocationError> {
        let found = self
            .api
            .list(&ListParams::default().labels(&selector()))
            .await
            .map_err(|source| RevocationError { tenant: "(all)".into(), source })?;
        let mut cache = self.cache.write();
        for (uid, until) in found.iter().flat_map(entries) {
            raise(&mut cache, &uid, until);
        }
        let maps = found.into_iter().filter_map(|map| Some((tenant_of(&map)?.1, map)));
        *self.maps.write() = maps.collect();
        Ok(())
    }

    /// Creates the `ConfigMap`s again that someone deleted. Returns the names of their tenants.
    pub(crate) async fn restore_deleted(&self) -> Result<Vec<String>, RevocationError> {
        let failed = |source| RevocationError { tenant: "(all)".into(), source };
        let found = self.api.list_metadata(&ListParams::default().labels(&selector())).await.map_err(failed)?;
        let found: Vec<String> = found.into_iter().filter_map(|map| map.metadata.name).collect();
        let mut maps: Vec<ConfigMap> = self.maps.read().values().cloned().collect();
        maps.retain(|map| map.metadata.name.as_ref().is_some_and(|name| !found.contains(name)));
        let mut restored = Vec::new();
        for map in maps {
            let Some((tenant, uid)) = tenant_of(&map) else { continue };
            match self.api.create(&params(), &new_map(&tenant, &uid, map.data.unwrap_or_default())).await {
                Ok(_) => restored.push(tenant),
                // It was created meanwhile, or the tenant was torn down.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(source) => return Err(RevocationError { tenant, source }),
            }
        }
        Ok(restored)
    }

    /// Returns the revocations that were loaded for a tenant with this name and UID, by name of the principal.
    pub(crate) fn of_tenant(&self, name: &str, uid: &str) -> BTreeMap<String, i64> {
        let maps = self.maps.read();
        let map = maps.get(uid).filter(|map| tenant_of(map).is_some_and(|(tenant, _)| tenant == name));
        map.map(named).unwrap_or_default()
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
        principal: Revoked<'_>,
        exists: impl Fn(&str) -> bool,
    ) -> Result<bool, RevocationError> {
        let Revoked { uid, until, .. } = principal;
        if self.get(uid).is_some_and(|known| known >= until) {
            return Ok(false);
        }
        loop {
            match self.write(tenant, principal, &exists).await {
                Ok(()) => break,
                // Another writer was faster, so read again. In each round, at least one writer succeeds.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
                Err(source) => return Err(RevocationError { tenant: tenant.0.to_owned(), source }),
            }
        }
        raise(&mut self.cache.write(), uid, until);
        Ok(true)
    }

    async fn write(
        &self,
        (tenant, tenant_uid): (&str, &str),
        principal: Revoked<'_>,
        exists: &impl Fn(&str) -> bool,
    ) -> Result<(), kube::Error> {
        let name = config_map_name(tenant_uid);
        let Some(mut found) = self.api.get_opt(&name).await? else {
            // If someone deleted it, it held more.
            let mut data = self.maps.read().get(tenant_uid).and_then(|map| map.data.clone()).unwrap_or_default();
            data.extend(principal.entries());
            let created = self.api.create(&params(), &new_map(tenant, tenant_uid, data)).await?;
            self.maps.write().insert(tenant_uid.to_owned(), created);
            return Ok(());
        };
        let data = found.data.get_or_insert_default();
        let before = data.get(principal.uid).and_then(|text| text.parse::<i64>().ok());
        if before.is_some_and(|before| before >= principal.until) {
            return Ok(());
        }
        data.retain(|key, _| exists(key.strip_suffix(NAME).unwrap_or(key)));
        data.extend(principal.entries());
        let written = self.api.replace(&name, &params(), &found).await?;
        self.maps.write().insert(tenant_uid.to_owned(), written);
        Ok(())
    }

    /// Deletes the revocations of the deleted tenant that the proof is about. Its keys are deleted too, so none of its
    /// tokens is valid any more.
    pub(crate) async fn delete(&self, tenant: &str, proof: &ProvenUnwanted) -> Result<(), RevocationError> {
        self.maps.write().remove(proof.owner_uid());
        match self.api.delete(&config_map_name(proof.owner_uid()), &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(source) => Err(RevocationError { tenant: tenant.to_owned(), source }),
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

/// Returns the selector of the `ConfigMap`s of all tenants.
fn selector() -> String {
    format!("{},{}={COMPONENT}", labels::MANAGED_SELECTOR, labels::COMPONENT)
}

fn new_map(tenant: &str, tenant_uid: &str, data: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(config_map_name(tenant_uid)),
            labels: Some(labels::of_tenant(COMPONENT, tenant, tenant_uid)),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    }
}

fn config_map_name(tenant_uid: &str) -> String {
    format!("tenant-{tenant_uid}-revocations")
}

fn entries(map: &ConfigMap) -> impl Iterator<Item = (String, i64)> + '_ {
    map.data.iter().flatten().filter_map(|(uid, until)| Some((uid.clone(), until.parse().ok()?)))
}

impl Revoked<'_> {
    fn entries(&self) -> [(String, String); 2] {
        [(self.uid.to_owned(), self.until.to_string()), (format!("{}{NAME}", self.uid), self.name.to_owned())]
    }
}

/// Returns name and UID of the tenant of a `ConfigMap`.
fn tenant_of(map: &ConfigMap) -> Option<(String, String)> {
    let label = |key| map.metadata.labels.as_ref()?.get(key).cloned();
    Some((label(labels::TENANT)?, label(labels::TENANT_UID)?))
}

/// Returns the revocations in a `ConfigMap` by name of the principal, of several with one name the latest.
fn named(map: &ConfigMap) -> BTreeMap<String, i64> {
    let mut named = BTreeMap::new();
    for (uid, until) in entries(map) {
        if let Some(name) = map.data.as_ref().and_then(|data| data.get(&format!("{uid}{NAME}"))) {
            let latest = named.entry(name.clone()).or_insert(until);
            *latest = until.max(*latest);
        }
    }
    named
}

/// Moves a revocation in the cache to a later time.
fn raise(cache: &mut HashMap<String, i64>, uid: &str, until: i64) {
    let revocation = cache.entry(uid.to_owned()).or_insert(until);
    *revocation = (*revocation).max(until);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;

    #[test]
    fn a_revocation_never_moves_back() {
        let mut cache = HashMap::new();
        raise(&mut cache, "p-1", 100);
        raise(&mut cache, "p-1", 50);
        assert_eq!(cache["p-1"], 100);
        raise(&mut cache, "p-1", 150);
        assert_eq!(cache["p-1"], 150);
    }

    #[tokio::test]
    async fn deleted_revocations_are_restored() {
        const MAP: &str = "/api/v1/namespaces/mcp-fleet-system/configmaps/tenant-t-1-revocations";
        let api = FakeApi::default();
        let revocations = Revocations::new(api.client(), "mcp-fleet-system");
        let raise = async |uid: &str, until| {
            let principal = Revoked { uid, name: "coder", until };
            revocations.raise(("acme", "t-1"), principal, |_| true).await.unwrap()
        };
        assert!(raise("p-1", 7).await);
        assert_eq!(revocations.restore_deleted().await.unwrap(), Vec::<String>::new());
        let before = api.get(MAP).unwrap();
        api.remove(MAP);
        assert_eq!(revocations.restore_deleted().await.unwrap(), ["acme"]);
        assert_eq!(api.get(MAP).unwrap()["data"], before["data"]);
        // A revocation that comes first restores the others too.
        api.remove(MAP);
        assert!(raise("p-2", 9).await);
        let data = api.get(MAP).unwrap()["data"].clone();
        assert_eq!((&data["p-1"], &data["p-2"]), (&"7".into(), &"9".into()));
    }

    #[test]
    fn revocations_are_found_by_name() {
        let [one, two] = [("p-1", 7), ("p-2", 9)].map(|(uid, until)| Revoked { uid, name: "coder", until }.entries());
        let mut data: BTreeMap<String, String> = one.into_iter().chain(two).collect();
        // An earlier version stored no names.
        data.insert("p-3".into(), "11".into());
        let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        assert_eq!(named(&map), [("coder".to_owned(), 9)].into());
        let uids: Vec<_> = entries(&map).collect();
        assert_eq!(uids, [("p-1".to_owned(), 7), ("p-2".to_owned(), 9), ("p-3".to_owned(), 11)]);
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
