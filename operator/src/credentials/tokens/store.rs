//! Where the tenants' keys are kept: one Secret each in the operator's namespace, made once. A copy stays in memory,
//! and from it the Secret is put back if it is deleted or changed by hand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::RwLock;

use super::keys::{KeyError, TenantKeys};
use crate::kubernetes::FIELD_MANAGER;

/// Why the keys of a tenant are not at hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyStoreError {
    /// The API server refused or could not be reached.
    #[error("failed to read or write the Secret {name}")]
    Api {
        /// Which Secret.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// What is in the Secret cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The keys of all tenants.
#[derive(Clone, Debug)]
pub(crate) struct KeyStore {
    api: Api<Secret>,
    cache: Arc<RwLock<HashMap<String, Arc<TenantKeys>>>>,
}

/// The name of a tenant's Secret.
pub fn secret_name(tenant_uid: &str) -> String {
    format!("tenant-{tenant_uid}-signing")
}

impl KeyStore {
    /// Keeps keys in `namespace`, the operator's.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), cache: Arc::default() }
    }

    /// The keys, if they have been read or made before.
    pub(crate) fn cached(&self, tenant_uid: &str) -> Option<Arc<TenantKeys>> {
        self.cache.read().get(tenant_uid).cloned()
    }

    /// The keys, read or made where needed. They are never replaced: tokens and sessions would end.
    pub(crate) async fn get_or_create(&self, tenant: &str, tenant_uid: &str) -> Result<Arc<TenantKeys>, KeyStoreError> {
        if let Some(keys) = self.cached(tenant_uid) {
            return Ok(keys);
        }
        let name = secret_name(tenant_uid);
        let failed = |source| KeyStoreError::Api { name: name.clone(), source };
        let keys = if let Some(found) = self.api.get_opt(&name).await.map_err(failed)? {
            read(&found)?
        } else {
            let made = TenantKeys::generate()?;
            match self.api.create(&params(), &render(&name, tenant, tenant_uid, &made)).await {
                Ok(_) => made,
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

    /// Brings a tenant's Secret to these keys of [`Self::get_or_create`].
    pub(crate) async fn keep(&self, tenant: &str, tenant_uid: &str, keys: &TenantKeys) -> Result<(), KeyStoreError> {
        let name = secret_name(tenant_uid);
        let failed = |source| KeyStoreError::Api { name: name.clone(), source };
        let mut want = render(&name, tenant, tenant_uid, keys);
        let written = match self.api.get_opt(&name).await.map_err(failed)? {
            Some(found) if found.data == want.data && found.metadata.labels == want.metadata.labels => return Ok(()),
            // What cannot be changed is made anew.
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
        written.map_err(failed)?;
        tracing::info!(object = format!("Secret {name}"), "putting back what others changed");
        Ok(())
    }

    /// Deletes the keys of a tenant that goes: all its tokens are worth nothing from then on.
    pub(crate) async fn delete(&self, tenant_uid: &str) -> Result<(), KeyStoreError> {
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

fn render(name: &str, tenant: &str, tenant_uid: &str, keys: &TenantKeys) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(crate::kubernetes::labels::of_tenant("signing", tenant, tenant_uid)),
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

fn read(secret: &Secret) -> Result<TenantKeys, KeyError> {
    let part = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let pkcs8 = part("key.der").ok_or(KeyError::Missing("`key.der` is not there"))?;
    let session = part("session").ok_or(KeyError::Missing("`session` is not there"))?;
    TenantKeys::from_parts(pkcs8, session)
}
