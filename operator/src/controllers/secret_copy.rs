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
    pub(super) annotations: Labels,
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
        (self.kind, &self.labels, &self.annotations).hash(&mut hasher);
        hasher.finish().into()
    }

    fn api(&self, ctx: &Context) -> Api<Secret> {
        Api::namespaced(ctx.client.clone(), self.namespace)
    }

    fn failed(&self, source: kube::Error) -> SecretError {
        SecretError::Api { name: self.name.to_owned(), source }
    }

    /// Reads the Secret, if there is one. Fails if it is not ours.
    pub(super) async fn read(&self, ctx: &Context) -> Result<Option<Secret>, ReconcileError> {
        let found = self.api(ctx).get_opt(self.name).await.map_err(|source| self.failed(source))?;
        match &found {
            Some(found) if !labels::same_owner(found.metadata.labels.as_ref(), &self.labels) => {
                Err(SecretError::NotOurs { name: self.name.to_owned() }.into())
            }
            _ => Ok(found),
        }
    }

    /// Creates or replaces the Secret, if it differs.
    pub(super) async fn apply(&self, ctx: &Context) -> Result<(), ReconcileError> {
        let found = self.read(ctx).await?;
        self.apply_over(ctx, found).await
    }

    /// Creates the Secret or replaces the one that was read, if it differs.
    pub(super) async fn apply_over(&self, ctx: &Context, found: Option<Secret>) -> Result<(), ReconcileError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let mut wanted = self.render();
        let is_same = |found: &Secret| {
            let annotations = found.metadata.annotations.clone().unwrap_or_default();
            found.data.clone().unwrap_or_default() == self.data
                && found.metadata.labels == wanted.metadata.labels
                && self.annotations.iter().all(|(name, value)| annotations.get(name) == Some(value))
        };
        let metadata = match found {
            None => self.api(ctx).create(&params, &wanted).await.map_err(|source| self.failed(source))?.metadata,
            Some(found) if is_same(&found) => found.metadata,
            Some(found) => {
                wanted.metadata.resource_version = found.metadata.resource_version;
                let replaced = self.api(ctx).replace(self.name, &params, &wanted).await;
                replaced.map_err(|source| self.failed(source))?.metadata
            }
        };
        ctx.cache.secrets.verify(&metadata, self.digest(), None);
        Ok(())
    }

    fn render(&self) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.to_owned()),
                namespace: Some(self.namespace.to_owned()),
                labels: Some(self.labels.clone()),
                annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(self.kind.to_owned()),
            data: Some(self.data.clone()),
            ..Secret::default()
        }
    }
}
