//! Copies of what people keep in Secrets and `ConfigMap`s of a tenant's namespace, in its runtime namespace, where pods can use
//! them. People can change the source at any time, and the copy not at all.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use mcp_fleet_core::labels::{self, Labels};

use super::error::ReconcileError;
use crate::context::Context;
use crate::credentials::ca::SecretError;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::Knowledge;

/// A Secret with the contents of another object.
#[derive(Clone)]
pub(super) struct SecretCopy<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: Labels,
    /// Type of the Secret.
    pub(super) kind: &'static str,
    pub(super) data: BTreeMap<String, ByteString>,
}

impl SecretCopy<'_> {
    /// Whether the Secret is known to be as wanted, without a request.
    pub(super) fn is_known(&self, ctx: &Context) -> bool {
        matches!(ctx.cache.secrets.knowledge(self.namespace, self.name, self.digest()), Knowledge::AsWanted(_))
    }

    fn digest(&self) -> u128 {
        let mut hasher = DefaultHasher::new();
        for (key, value) in &self.data {
            (key, &value.0).hash(&mut hasher);
        }
        (self.kind, &self.labels).hash(&mut hasher);
        hasher.finish().into()
    }

    /// Creates or replaces the Secret, if it differs. Returns its metadata.
    pub(super) async fn apply(&self, ctx: &Context) -> Result<ObjectMeta, ReconcileError> {
        let api: Api<Secret> = Api::namespaced(ctx.client.clone(), self.namespace);
        let failed = |source| SecretError::Api { name: self.name.to_owned(), source };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let mut wanted = self.render();
        let metadata = match api.get_opt(self.name).await.map_err(failed)? {
            None => api.create(&params, &wanted).await.map_err(failed)?.metadata,
            Some(found) => {
                if !labels::same_owner(found.metadata.labels.as_ref(), &self.labels) {
                    return Err(SecretError::NotOurs { name: self.name.to_owned() }.into());
                }
                if found.data.unwrap_or_default() == self.data && found.metadata.labels == wanted.metadata.labels {
                    found.metadata
                } else {
                    wanted.metadata.resource_version = found.metadata.resource_version;
                    api.replace(self.name, &params, &wanted).await.map_err(failed)?.metadata
                }
            }
        };
        ctx.cache.secrets.verify(&metadata, self.digest(), None);
        Ok(metadata)
    }

    fn render(&self) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.to_owned()),
                namespace: Some(self.namespace.to_owned()),
                labels: Some(self.labels.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(self.kind.to_owned()),
            data: Some(self.data.clone()),
            ..Secret::default()
        }
    }
}
