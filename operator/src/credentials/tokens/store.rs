//! Stores the keys of tenants: one Secret per tenant in the operator's namespace, created once. If the Secret is
//! deleted or changed, it is restored from a copy in memory.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client};
use mcp_fleet_core::credentials::tokens::{KeyError, TenantKeys};
use parking_lot::RwLock;

use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Knowledge, Secrets};
use crate::kubernetes::deletion::ProvenUnwanted;

/// Why the keys of a tenant could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyStoreError {
    /// The API server refused or could not be reached.
    #[error("failed to read or write the Secret {name}")]
    Api {
        /// Name of the Secret.
        name: String,
        /// Error of the API server.
        source: kube::Error,
    },
    /// The keys could not be generated, or those in the Secret are invalid.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Keys of all tenants.
#[derive(Clone, Debug)]
pub(crate) struct KeyStore {
    namespace: String,
    api: Api<Secret>,
    cache: Arc<RwLock<HashMap<String, Arc<TenantKeys>>>>,
}

/// Returns the name of the Secret with a tenant's keys.
pub fn secret_name(tenant_uid: &str) -> String {
    format!("tenant-{tenant_uid}-signing")
}

impl KeyStore {
    /// Creates a store in `namespace`, the operator's namespace.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { namespace: namespace.to_owned(), api, cache: Arc::default() }
    }

    /// Returns the keys of a tenant from memory; none before they are loaded.
    pub(crate) fn cached(&self, tenant_uid: &str) -> Option<Arc<TenantKeys>> {
        self.cache.read().get(tenant_uid).cloned()
    }

    /// Returns the keys of a tenant. Reads or creates them if they are not in memory, and never replaces them, which
    /// would invalidate all tokens and sessions.
    pub(crate) async fn get_or_create(&self, tenant: &str, tenant_uid: &str) -> Result<Arc<TenantKeys>, KeyStoreError> {
        if let Some(keys) = self.cached(tenant_uid) {
            return Ok(keys);
        }
        let name = secret_name(tenant_uid);
        let failed = |source| KeyStoreError::Api { name: name.clone(), source };
        let keys = if let Some(found) = self.api.get_opt(&name).await.map_err(failed)? {
            read(&found)?
        } else {
            let new = TenantKeys::generate()?;
            match self.api.create(&params(), &self.render(&name, tenant, tenant_uid, &new)).await {
                Ok(_) => new,
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    read(&self.api.get(&name).await.map_err(failed)?)?
                }
                Err(error) => return Err(failed(error)),
            }
        };
        let keys = Arc::new(keys);
        self.cache.write().insert(tenant_uid.to_owned(), keys.clone());
        Ok(keys)
    }

    /// Restores a tenant's Secret if it differs from the keys that [`Self::get_or_create`] returned. Sends no request if the
    /// Secret is known to be as it should.
    pub(crate) async fn restore_secret(
        &self,
        secrets: &Secrets,
        tenant: &str,
        tenant_uid: &str,
        keys: &TenantKeys,
    ) -> Result<(), KeyStoreError> {
        let name = secret_name(tenant_uid);
        let digest = {
            let mut hasher = DefaultHasher::new();
            (tenant, tenant_uid, &keys.kid).hash(&mut hasher);
            hasher.finish().into()
        };
        if matches!(secrets.knowledge(&self.namespace, &name, digest), Knowledge::AsWanted(_)) {
            return Ok(());
        }
        let failed = |source| KeyStoreError::Api { name: name.clone(), source };
        let mut want = self.render(&name, tenant, tenant_uid, keys);
        let written = match self.api.get_opt(&name).await.map_err(failed)? {
            Some(found) if found.data == want.data && found.metadata.labels == want.metadata.labels => {
                secrets.verify(&found.metadata, digest, None);
                return Ok(());
            }
            // A Secret that cannot be updated in place is deleted and created again.
            Some(found) if found.immutable == Some(true) || found.type_ != want.type_ => {
                let preconditions = Preconditions { uid: found.metadata.uid, resource_version: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                self.api.delete(&name, &params).await.map_err(failed)?;
                self.api.create(&self::params(), &want).await
            }
            Some(found) => {
                want.metadata.resource_version = found.metadata.resource_version;
                self.api.replace(&name, &params(), &want).await
            }
            None => self.api.create(&params(), &want).await,
        };
        secrets.verify(&written.map_err(failed)?.metadata, digest, None);
        tracing::info!(object = format!("Secret {name}"), "restored an object that was changed or deleted");
        Ok(())
    }

    fn render(&self, name: &str, tenant: &str, tenant_uid: &str, keys: &TenantKeys) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(mcp_fleet_core::labels::of_tenant("signing", tenant, tenant_uid)),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".into()),
            data: Some(BTreeMap::from([
                ("key.der".to_owned(), ByteString(keys.pkcs8.clone())),
                ("session".to_owned(), ByteString(keys.session.to_vec())),
            ])),
            ..Secret::default()
        }
    }

    /// Deletes the keys of the deleted tenant that the proof is about, which makes all its tokens invalid.
    pub(crate) async fn delete(&self, proof: &ProvenUnwanted) -> Result<(), KeyStoreError> {
        let tenant_uid = proof.owner_uid();
        self.cache.write().remove(tenant_uid);
        let name = secret_name(tenant_uid);
        match self.api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(source) => Err(KeyStoreError::Api { name, source }),
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

fn read(secret: &Secret) -> Result<TenantKeys, KeyError> {
    let entry = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let pkcs8 = entry("key.der").ok_or(KeyError::Invalid("`key.der` is missing"))?;
    let session = entry("session").ok_or(KeyError::Invalid("`session` is missing"))?;
    TenantKeys::from_parts(pkcs8, session)
}
