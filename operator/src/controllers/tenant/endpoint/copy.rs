//! The copy of a checked certificate in the runtime namespace, which the gateway mounts. The tenant's people can change
//! the Secret that it was read from at any time, and this one not at all.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use mcp_fleet_core::labels;

use super::certificate::Pair;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::secret_copy::SecretCopy;
use crate::controllers::tenant::validate::Tenant;
use crate::credentials::ca::SecretError;

/// Name of the Secret.
pub(in crate::controllers::tenant) const SECRET: &str = "gateway-public-tls";

/// Creates or replaces the copy, if it differs. Sends no request if it is known to be as wanted.
pub(super) async fn write(ctx: &Context, tenant: &Tenant, pair: &Pair) -> Result<(), ReconcileError> {
    let data = [("tls.crt", &pair.chain), ("tls.key", &pair.key)];
    let copy = SecretCopy {
        namespace: &tenant.runtime_namespace,
        name: SECRET,
        labels: labels::of_tenant("gateway", &tenant.id.name, &tenant.id.uid),
        annotations: labels::Labels::new(),
        kind: "kubernetes.io/tls",
        data: data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.clone()))).collect(),
    };
    if !copy.is_known(ctx) {
        copy.apply(ctx).await?;
    }
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
