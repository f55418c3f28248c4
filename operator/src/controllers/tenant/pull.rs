//! The Secrets with which the image of `mcp-pod` is pulled, as one step of the tenant's reconcile: those that the installation
//! names are copied into the runtime namespace, where pods can refer to them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::server_config::PULL_SECRET_TYPE;
use mcp_fleet_crds::MCPTenant;

use super::validate::Tenant;
use crate::context::Context;
use crate::controllers::apply::delete_undeclared;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::settings::pull_secret_copy;
use crate::controllers::secret_copy::SecretCopy;

/// Component of a copy.
const COMPONENT: &str = "image-pull";
/// Key of a Secret with credentials for registries.
const KEY: &str = ".dockerconfigjson";
/// How often the Secrets are read again. Nothing else tells that somebody changed one.
const READ_INTERVAL: Duration = Duration::from_secs(120);
/// How often one is read that cannot be used.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Copies the Secrets, and deletes copies of those that are not named any more. Returns when to do it again; none without
/// Secrets. A Secret that cannot be used leaves its copy as it is: pods start without it where the image is on the node.
pub(super) async fn apply(
    ctx: &Context,
    object: &MCPTenant,
    tenant: &Tenant,
) -> Result<Option<Duration>, ReconcileError> {
    let names = &ctx.config.image_pull_secrets;
    let mut again = (!names.is_empty()).then_some(READ_INTERVAL);
    for name in names {
        let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.config.namespace);
        let secret = api.get_opt(name).await.map_err(ReconcileError::api("read a pull secret of the operator"))?;
        match usable(secret) {
            Ok(credentials) => copy(ctx, tenant, name, credentials).await?,
            Err(problem) => {
                tracing::warn!(secret = name, problem, "a Secret of the chart's imagePullSecrets is not used");
                again = Some(RETRY_INTERVAL);
            }
        }
    }
    let declared: Vec<_> = names.iter().map(|name| pull_secret_copy(name)).collect();
    let mut undeclared = ctx.cache.secrets.with_label(&tenant.runtime_namespace, labels::TENANT_UID, &tenant.id.uid);
    undeclared
        .retain(|(key, meta)| meta.labels.get(labels::COMPONENT) == Some(COMPONENT) && !declared.contains(&key.name));
    delete_undeclared(ctx, object, undeclared).await?;
    Ok(again)
}

async fn copy(
    ctx: &Context,
    tenant: &Tenant,
    name: &str,
    credentials: k8s_openapi::ByteString,
) -> Result<(), ReconcileError> {
    let copy = SecretCopy {
        namespace: &tenant.runtime_namespace,
        name: &pull_secret_copy(name),
        labels: labels::of_tenant(COMPONENT, &tenant.id.name, &tenant.id.uid),
        annotations: Labels::new(),
        kind: PULL_SECRET_TYPE,
        data: [(KEY.to_owned(), credentials)].into(),
    };
    if copy.is_known(ctx) { Ok(()) } else { copy.apply(ctx).await }
}

/// Returns the credentials in a Secret of the operator's namespace. Its own keys are there too.
fn usable(secret: Option<Secret>) -> Result<k8s_openapi::ByteString, &'static str> {
    let secret = secret.ok_or("it does not exist in the operator's namespace")?;
    if labels::are_ours(&secret.metadata.labels.unwrap_or_default()) {
        return Err("MCP Fleet made it for something else");
    }
    if secret.type_.as_deref() != Some(PULL_SECRET_TYPE) {
        return Err("its type is not kubernetes.io/dockerconfigjson");
    }
    secret.data.and_then(|mut data| data.remove(KEY)).ok_or("it has no key .dockerconfigjson")
}
