//! The copy of a checked certificate in the runtime namespace, which the gateway mounts. The tenant's people can change
//! the Secret that it was read from at any time, and this one not at all.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use mcp_fleet_core::labels;

use super::certificate::Pair;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::tenant::validate::Tenant;
use crate::credentials::ca::SecretError;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::Knowledge;

/// Name of the Secret.
pub(in crate::controllers::tenant) const SECRET: &str = "gateway-public-tls";

/// Creates or replaces the copy, if it differs. Sends no request if it is known to be as wanted.
pub(super) async fn write(ctx: &Context, tenant: &Tenant, pair: &Pair) -> Result<(), ReconcileError> {
    let (secrets, namespace) = (&ctx.cache.secrets, &tenant.runtime_namespace);
    let mut wanted = render(tenant, pair);
    let mut hasher = DefaultHasher::new();
    (&pair.chain, &pair.key, &wanted.metadata.labels).hash(&mut hasher);
    let digest = hasher.finish().into();
    if matches!(secrets.knowledge(namespace, SECRET, digest), Knowledge::AsWanted(_)) {
        return Ok(());
    }
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let failed = |source| SecretError::Api { name: SECRET.into(), source };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let metadata = match api.get_opt(SECRET).await.map_err(failed)? {
        None => api.create(&params, &wanted).await.map_err(failed)?.metadata,
        Some(found) => {
            let labels = wanted.metadata.labels.clone().unwrap_or_default();
            if !labels::same_owner(found.metadata.labels.as_ref(), &labels) {
                return Err(SecretError::NotOurs { name: SECRET.into() }.into());
            }
            if found.data == wanted.data && found.metadata.labels == wanted.metadata.labels {
                found.metadata
            } else {
                wanted.metadata.resource_version = found.metadata.resource_version;
                api.replace(SECRET, &params, &wanted).await.map_err(failed)?.metadata
            }
        }
    };
    secrets.verify(&metadata, digest, None);
    Ok(())
}

/// Deletes the copy, if the watch shows one.
pub(super) async fn remove(ctx: &Context, tenant: &Tenant) -> Result<(), ReconcileError> {
    let namespace = &tenant.runtime_namespace;
    if !ctx.cache.secrets.shows(namespace, SECRET) {
        return Ok(());
    }
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    match api.delete(SECRET, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(SecretError::Api { name: SECRET.into(), source }.into()),
    }
}

fn render(tenant: &Tenant, pair: &Pair) -> Secret {
    let data = [("tls.crt", &pair.chain), ("tls.key", &pair.key)];
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.into()),
            namespace: Some(tenant.runtime_namespace.clone()),
            labels: Some(labels::of_tenant("gateway", &tenant.id.name, &tenant.id.uid)),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.clone()))).collect()),
        ..Secret::default()
    }
}
