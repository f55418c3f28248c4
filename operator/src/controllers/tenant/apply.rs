//! Step four: applies what a tenant's namespaces hold.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use mcp_fleet_core::labels;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_crds::budget::Spending;
use mcp_fleet_crds::names::CREATED_FOR;
use mcp_fleet_crds::{MCPServer, MCPTenant};
use serde_json::Value;

use super::dereference::{Found, Inputs};
use super::desired::{DEPLOYMENT, Objects};
use super::quota::uncounted;
use super::validate::Tenant;
use super::{endpoint, pull};
use crate::context::Context;
use crate::controllers::apply::Applier;
use crate::controllers::budget::budget_state;
use crate::controllers::enforcement::Enforcement;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::tls_secret_name;
use crate::controllers::server::workspace;
use crate::controllers::teardown::scale_to_zero;
use crate::credentials::ca::{TlsSecret, ensure_tls};
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Cache, Key, Meta};
use crate::kubernetes::deletion::{OwnerState, delete_owned};
use crate::rollout::Progress;

/// What is known of a tenant after the apply step.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub tenant: Tenant,
    /// The live quota of the tenant's namespace; null if Kubernetes counts all of it.
    pub quota: Value,
    /// The live Deployment of the gateway.
    pub gateway: Value,
    pub enforcement: Enforcement,
    /// Spend against the tenant's `spendLimit`; none if it is not known yet.
    pub spending: Option<Spending>,
    /// The public names.
    pub endpoint: endpoint::Decision,
    pub pods: Pods,
    /// When the pull secrets of the installation are read again.
    pub pulls_again: Option<Duration>,
}

/// How far the rollout of the image has come for a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Pods {
    pub progress: Progress,
    /// The image that is rolled out.
    pub target: String,
    pub is_paused: bool,
}

/// Applies the objects of a tenant, and deletes what it no longer declares. What is in the tenant's own namespace comes
/// last: if its members get in the way there, everything that restricts them is in force.
pub(crate) async fn apply(
    ctx: &Context,
    object: &MCPTenant,
    tenant: Tenant,
    objects: &Objects,
    inputs: &Inputs,
) -> Result<Applied, ReconcileError> {
    let mut applier = Applier::new(ctx, object);
    applier.apply(&objects.runtime_namespace).await?;
    applier.apply_reserved(&objects.runtime_access).await?;
    ensure_keys(ctx, &tenant).await?;
    applier.apply_all(&objects.restrictions).await?;
    let tls = TlsSecret {
        namespace: &tenant.runtime_namespace,
        name: &tls_secret_name(DEPLOYMENT),
        labels: labels::of_tenant("gateway", &tenant.id.name, &tenant.id.uid),
        request: objects.certificate.clone(),
    };
    ensure_tls(&ctx.client, &ctx.cache.secrets, &ctx.ca, &tls, Timestamp::now()).await?;
    let pulls_again = pull::apply(ctx, object, &tenant).await?;
    applier.apply_all(&objects.gateway).await?;
    let gateway = applier.apply(&objects.deployment).await?;
    prune_orphans(ctx, &tenant).await?;
    if inputs.tenant_namespace == Found::Missing {
        create_namespace(ctx, &tenant).await?;
        let note = format!("created the namespace {}", tenant.namespace);
        ctx.events.normal(object, "NamespaceCreated", "Create", note).await;
    }
    applier.apply_reserved(&objects.access).await?;
    let quota = applier.apply_until(&objects.quota, |quota| uncounted(quota).is_empty()).await?;
    applier.apply_reserved_unwatched(&objects.ceilings).await?;
    applier.prune(prunable(&ctx.cache, &tenant)).await?;
    let enforcement = Enforcement::read(&ctx.shared_state, &tenant.id.uid, Kind::Tenant, &tenant.id.uid);
    // Last, because nothing else waits for it.
    let gateways = (&enforcement.state, enforcement.warming_up);
    let endpoint = endpoint::apply(ctx, object, &tenant, gateways, Timestamp::now()).await?;
    let spending = budget_state(ctx, &tenant.id.uid, &tenant.id.uid).map(|state| state.spending);
    let pods = Pods {
        progress: ctx.rollout.progress(&tenant.id.uid),
        target: ctx.rollout.target().to_owned(),
        is_paused: ctx.rollout.is_paused(),
    };
    Ok(Applied { tenant, quota, gateway, enforcement, spending, endpoint, pods, pulls_again })
}

/// Creates the tenant's own namespace. It is created once, and belongs to the tenant from then on.
async fn create_namespace(ctx: &Context, tenant: &Tenant) -> Result<(), ReconcileError> {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(tenant.namespace.clone()),
            labels: Some([(labels::TENANT.to_owned(), tenant.id.name.clone())].into()),
            annotations: Some([(CREATED_FOR.to_owned(), tenant.id.uid.clone())].into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let created = Api::<Namespace>::all(ctx.client.clone()).create(&params, &namespace).await;
    created.map(|_| ()).map_err(ReconcileError::api("create the tenant's namespace"))
}

/// Creates the tenant's keys, or restores the Secret that holds them. New keys are part of the policy, so it is compiled.
async fn ensure_keys(ctx: &Context, tenant: &Tenant) -> Result<(), ReconcileError> {
    let known = ctx.keys.cached(&tenant.id.uid).is_some();
    let keys = ctx.keys.get_or_create(&tenant.id.name, &tenant.id.uid).await?;
    if !known {
        ctx.shared_state.request_compilation(&tenant.id.uid);
    }
    ctx.keys.restore_secret(&ctx.cache.secrets, &tenant.id.name, &tenant.id.uid, &keys).await?;
    Ok(())
}

/// Deletes the quota of the tenant's namespace. The next reconcile creates it again, so that Kubernetes counts it.
pub(super) async fn delete_quota(ctx: &Context, tenant: &Tenant, quota: &Value) -> Result<(), ReconcileError> {
    let text = |field: &str| quota["metadata"][field].as_str();
    let Some(name) = text("name") else { return Ok(()) };
    tracing::info!(namespace = tenant.namespace, "recreating the quota, so that Kubernetes counts it");
    let preconditions = Preconditions { uid: text("uid").map(str::to_owned), resource_version: None };
    let quotas: Api<ResourceQuota> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
    match quotas.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(ReconcileError::Api { verb: "delete the quota", source }),
    }
}

/// Returns the tenant's own objects, which may go if they are not among its declared ones. Those of servers are left to the
/// servers' controller.
fn prunable(cache: &Cache, tenant: &Tenant) -> Vec<(Key, Meta)> {
    let mut owned = cache.owned.with_label(labels::TENANT_UID, &tenant.id.uid);
    owned.retain(|(key, meta)| {
        meta.labels.get(labels::SERVER_UID).is_none() && is_managed(key, &tenant.namespace, &tenant.runtime_namespace)
    });
    owned
}

/// Deletes the objects of servers that are gone, though no teardown ran for them: someone removed the finalizer.
async fn prune_orphans(ctx: &Context, tenant: &Tenant) -> Result<(), ReconcileError> {
    for ((uid, name), owned) in orphans(&ctx.cache, tenant) {
        let state = OwnerState::read::<MCPServer>(&ctx.client, Some(&tenant.namespace), &name, &uid).await?;
        let Some(proof) = state.gone() else {
            tracing::info!(server = name, "the cache lags behind and does not hold a server yet; its objects stay");
            continue;
        };
        scale_to_zero(ctx, &owned).await?;
        // The last spec of the server is unknown, so its workspace stays.
        workspace::retain(ctx, &tenant.runtime_namespace, &proof, Timestamp::now()).await?;
        delete_owned(&ctx.client, &proof, owned).await?;
    }
    Ok(())
}

/// Returns the objects of servers that the cache does not hold, by UID and name of the server.
fn orphans(cache: &Cache, tenant: &Tenant) -> BTreeMap<(String, String), Vec<(Key, Meta)>> {
    let mut orphans: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, meta) in cache.owned.with_label(labels::TENANT_UID, &tenant.id.uid) {
        let label = |name| meta.labels.get(name).map(str::to_owned);
        // In other namespaces anybody can set our labels.
        if let (Some(uid), Some(name)) = (label(labels::SERVER_UID), label(labels::SERVER))
            && key.namespace == tenant.runtime_namespace
            && !cache.has_server(&uid)
        {
            orphans.entry((uid, name)).or_default().push((key, meta));
        }
    }
    orphans
}

/// Whether the operator makes objects of that kind in that namespace. The labels of an object alone do not prove that it
/// made this one: anybody can set them, also on objects that the operator must not touch.
pub(super) fn is_managed(key: &Key, namespace: &str, runtime_namespace: &str) -> bool {
    key.namespace == runtime_namespace
        || (key.namespace == namespace && matches!(key.kind.as_str(), "ResourceQuota" | "RoleBinding" | "ConfigMap"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::manifests::settings::Settings;
    use crate::controllers::tenant::desired::{desired, tests::all};
    use crate::controllers::tenant::tests::checked;

    fn key(kind: &str, namespace: &str) -> Key {
        Key { kind: kind.into(), namespace: namespace.into(), name: "x".into() }
    }

    #[test]
    fn labels_do_not_make_an_object_in_the_tenants_namespace_ours() {
        let managed = |kind: &str, namespace: &str| is_managed(&key(kind, namespace), "acme", "acme-mcp");
        assert!(
            managed("Deployment", "acme-mcp") && managed("ResourceQuota", "acme") && managed("RoleBinding", "acme")
        );
        assert!(!managed("Deployment", "acme") && !managed("Service", "acme") && !managed("RoleBinding", "elsewhere"));
    }

    #[test]
    fn every_rendered_object_counts_as_managed() {
        for object in all(&desired(&checked(), &Settings::example())) {
            let Some(namespace) = &object.namespace else { continue };
            assert!(is_managed(&key(&object.resource.kind, namespace), "acme", "acme-mcp"), "{object}");
        }
    }
}
