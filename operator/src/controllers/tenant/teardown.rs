//! The teardown of a tenant, in an order in which no pod is ever without its restrictions: the pods end first, then the
//! secrets go, then the runtime namespace with its network policies, and at last the tenant's own namespace, if it is to
//! be deleted at all.

use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::ResourceExt;
use kube::api::{ApiResource, DeleteParams, ListParams};
use mcp_fleet_crds::MCPTenant;

use super::apply::is_managed;
use super::dereference::{Found, Inputs, dereference};
use super::desired::binding;
use super::status;
use super::validate::{Tenant, deletes_namespace};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::finalizer::Teardown;
use crate::controllers::manifests::settings::Settings;
use crate::controllers::outcome::Outcome;
use crate::controllers::teardown::{POD_CHECK_INTERVAL, has_pods, scale_to_zero};
use crate::kubernetes::apply::{ApplyError, apply, delete};
use crate::kubernetes::cache::{OPERATOR_BINDING, resource_of};
use crate::kubernetes::labels;

/// Continues the teardown of a tenant.
pub(super) async fn tear_down(object: &MCPTenant, ctx: &Context) -> Result<Teardown, ReconcileError> {
    let inputs = dereference(object, ctx).await?;
    let tenant = Tenant::new(object, inputs.id.clone());
    let uid = &tenant.id.uid;
    // The compiler refuses every call of a tenant that is being deleted.
    ctx.shared_state.request_compilation(uid);
    let has_runtime_namespace = matches!(&inputs.runtime_namespace, Found::There { labels, terminating: false, .. }
        if labels.get(labels::TENANT_UID) == Some(uid));
    if has_runtime_namespace {
        if !stop_pods(ctx, &tenant).await? {
            status::write(ctx, object, &Outcome::Deleting("waiting for the pods to end")).await?;
            return Ok(Teardown::Unfinished(POD_CHECK_INTERVAL));
        }
        delete_secrets(ctx, &tenant.runtime_namespace, uid).await?;
    }
    ctx.keys.delete(uid).await?;
    ctx.revocations.delete(&tenant.id.name, uid).await?;
    if has_runtime_namespace {
        let namespaces = ApiResource::erase::<Namespace>(&());
        delete(&ctx.client, &namespaces, None, &tenant.runtime_namespace, None).await?;
    }
    clean_namespace(ctx, object, &tenant, &inputs).await?;
    ctx.shared_state.remove_tenant(uid);
    ctx.shared_state.request_compilation(uid);
    ctx.events.normal(object, "TornDown", "Delete", format!("the tenant {} is torn down", tenant.id.name)).await;
    Ok(Teardown::Done)
}

/// Scales the workloads of the runtime namespace to zero. Returns whether all pods have ended.
async fn stop_pods(ctx: &Context, tenant: &Tenant) -> Result<bool, ReconcileError> {
    let runtime = &tenant.runtime_namespace;
    restore_access(ctx, tenant, runtime).await?;
    let mut owned = ctx.cache.owned.with_label(labels::TENANT_UID, &tenant.id.uid);
    owned.retain(|(key, _)| key.namespace == *runtime);
    scale_to_zero(ctx, &owned).await?;
    Ok(!has_pods(ctx, runtime, labels::MANAGED_SELECTOR).await?)
}

/// Restores the binding that lets the operator work in a namespace. Returns whether it exists and is ours.
async fn restore_access(ctx: &Context, tenant: &Tenant, namespace: &str) -> Result<bool, ReconcileError> {
    // A binding does not contain the address.
    let address = ctx.config.service_address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let settings = Settings::new(&ctx.config, address);
    let Some(wanted) = binding(tenant, &settings, namespace) else { return Ok(false) };
    match apply(&ctx.client, &wanted).await {
        Ok(_) => Ok(true),
        Err(error @ ApplyError::NotOurs { .. }) => {
            tracing::warn!(error = crate::error::chain(&error), "leaving objects in a namespace without access to it");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

async fn delete_secrets(ctx: &Context, namespace: &str, uid: &str) -> Result<(), ReconcileError> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("{}={uid}", labels::TENANT_UID));
    for secret in api.list_metadata(&ours).await.map_err(ReconcileError::api("list our Secrets"))? {
        match api.delete(&secret.name_any(), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => return Err(ReconcileError::Api { verb: "delete a Secret", source }),
        }
    }
    Ok(())
}

/// Deletes what the operator made in the tenant's own namespace, and the namespace itself where the tenant asks for that.
async fn clean_namespace(
    ctx: &Context,
    object: &MCPTenant,
    tenant: &Tenant,
    inputs: &Inputs,
) -> Result<(), ReconcileError> {
    let (namespace, uid) = (&tenant.namespace, &tenant.id.uid);
    let claimed = inputs.older_claim.is_none()
        && matches!(&inputs.tenant_namespace, Found::There { labels, terminating: false, .. }
            if labels.get(labels::TENANT) == Some(&tenant.id.name));
    if !claimed {
        return Ok(());
    }
    let mut owned = ctx.cache.owned.with_label(labels::TENANT_UID, uid);
    owned.retain(|(key, _)| key.namespace == *namespace && is_managed(key, namespace, &tenant.runtime_namespace));
    let may_delete = !owned.is_empty() && restore_access(ctx, tenant, namespace).await?;
    if may_delete {
        delete_secrets(ctx, namespace, uid).await?;
    }
    if deletes_namespace(object, &inputs.tenant_namespace) {
        delete(&ctx.client, &ApiResource::erase::<Namespace>(&()), None, namespace, None).await?;
        return Ok(());
    }
    if !may_delete {
        return Ok(());
    }
    let (bindings, others): (Vec<_>, Vec<_>) = owned.into_iter().partition(|(key, _)| key.name == OPERATOR_BINDING);
    for (key, meta) in others {
        if let Some(resource) = resource_of(&key.kind) {
            delete(&ctx.client, &resource, Some(namespace), &key.name, Some(&meta.uid)).await?;
        }
    }
    // The binding goes last: it permits the other deletions. One that was just restored is not in the cache yet.
    let binding_uid = bindings.first().map(|(_, meta)| meta.uid.as_str());
    let bindings = ApiResource::erase::<RoleBinding>(&());
    delete(&ctx.client, &bindings, Some(namespace), OPERATOR_BINDING, binding_uid).await?;
    Ok(())
}
