//! Where revocations are kept: written by compare-and-swap before anyone hears of them, never lowered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use parking_lot::RwLock;

use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::labels;

const COMPONENT: &str = "revocations";

/// Why a latch could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to read or write the revocations of tenant {tenant}")]
pub(crate) struct RevocationError {
    tenant: String,
    source: kube::Error,
}

/// All revocations, by the UID of the principal, in Unix seconds.
#[derive(Clone, Debug)]
pub(crate) struct Revocations {
    api: Api<ConfigMap>,
    known: Arc<RwLock<HashMap<String, i64>>>,
}

impl Revocations {
    /// Keeps them in `namespace`, the operator's.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), known: Arc::default() }
    }

    /// Reads all of them: before anything is compiled by a new leader.
    pub(crate) async fn load(&self) -> Result<(), RevocationError> {
        let selector = format!("{},{}={COMPONENT}", labels::MANAGED_SELECTOR, labels::COMPONENT);
        let found = self
            .api
            .list(&ListParams::default().labels(&selector))
            .await
            .map_err(|source| RevocationError { tenant: "(all)".into(), source })?;
        let mut known = self.known.write();
        for (uid, until) in found.iter().flat_map(entries) {
            raise(&mut known, &uid, until);
        }
        Ok(())
    }

    /// Tokens of this principal with `iat` at or before that second are revoked.
    pub(crate) fn get(&self, principal_uid: &str) -> Option<i64> {
        self.known.read().get(principal_uid).copied()
    }

    /// Raises the latch of a principal, durably first. Answers whether it moved. Revocations of principals that are not
    /// `alive` any more are dropped: a token of theirs names nobody.
    pub(crate) async fn raise(
        &self,
        tenant: (&str, &str),
        principal_uid: &str,
        until: i64,
        alive: impl Fn(&str) -> bool,
    ) -> Result<bool, RevocationError> {
        if self.get(principal_uid).is_some_and(|known| known >= until) {
            return Ok(false);
        }
        loop {
            match self.write(tenant, principal_uid, until, &alive).await {
                Ok(()) => break,
                // Another wrote in between: read again. Each round someone made progress.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
                Err(source) => return Err(RevocationError { tenant: tenant.0.to_owned(), source }),
            }
        }
        raise(&mut self.known.write(), principal_uid, until);
        Ok(true)
    }

    async fn write(
        &self,
        (tenant, tenant_uid): (&str, &str),
        principal: &str,
        until: i64,
        alive: &impl Fn(&str) -> bool,
    ) -> Result<(), kube::Error> {
        let name = config_map_name(tenant_uid);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let Some(mut found) = self.api.get_opt(&name).await? else {
            let made = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name),
                    labels: Some(labels::of_tenant(COMPONENT, tenant, tenant_uid)),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(principal.to_owned(), until.to_string())])),
                ..ConfigMap::default()
            };
            return self.api.create(&params, &made).await.map(|_| ());
        };
        let data = found.data.get_or_insert_default();
        let before = data.get(principal).and_then(|text| text.parse::<i64>().ok());
        if before.is_some_and(|before| before >= until) {
            return Ok(());
        }
        data.retain(|uid, _| alive(uid));
        data.insert(principal.to_owned(), until.to_string());
        self.api.replace(&name, &params, &found).await.map(|_| ())
    }

    /// Deletes the revocations of a tenant that goes: its keys go too, and no token of it is good any more.
    pub(crate) async fn delete(&self, tenant: &str, tenant_uid: &str) -> Result<(), RevocationError> {
        match self.api.delete(&config_map_name(tenant_uid), &DeleteParams::default()).await {
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

fn raise(known: &mut HashMap<String, i64>, uid: &str, until: i64) {
    let latch = known.entry(uid.to_owned()).or_insert(until);
    *latch = (*latch).max(until);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latch_never_goes_down() {
        let mut known = HashMap::new();
        raise(&mut known, "p-1", 100);
        raise(&mut known, "p-1", 50);
        assert_eq!(known["p-1"], 100);
        raise(&mut known, "p-1", 150);
        assert_eq!(known["p-1"], 150);
    }

    #[test]
    fn what_cannot_be_read_in_a_config_map_is_passed_over() {
        let map = ConfigMap {
            data: Some(BTreeMap::from([("p-1".into(), "7".into()), ("p-2".into(), "soon".into())])),
            ..ConfigMap::default()
        };
        assert_eq!(entries(&map).collect::<Vec<_>>(), [("p-1".to_owned(), 7)]);
    }
}
