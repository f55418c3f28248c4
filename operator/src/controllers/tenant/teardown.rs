//! The teardown of a tenant, in an order in which no pod is ever without its restrictions: the pods end first, then the
//! secrets go, then the runtime namespace with its network policies, and at last the tenant's own namespace, if it is to
//! be deleted at all.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::ApiResource;
use mcp_fleet_core::labels;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::names::CEILINGS;

use super::apply::is_managed;
use super::dereference::{Found, Inputs, dereference};
use super::desired::access;
use super::status;
use super::validate::{Tenant, deletes_namespace};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::finalizer::Teardown;
use crate::controllers::manifests::settings::Settings;
use crate::controllers::outcome::Outcome;
use crate::controllers::teardown::{delete_secrets, has_pods, pause, scale_to_zero};
use crate::kubernetes::apply::{Rendered, apply_reserved};
use crate::kubernetes::cache::OPERATOR_BINDING;
use crate::kubernetes::deletion::{OwnerState, ProvenUnwanted, delete, delete_owned};

/// Continues the teardown of a tenant.
pub(super) async fn tear_down(object: &MCPTenant, ctx: &Context) -> Result<Teardown, ReconcileError> {
    let inputs = dereference(object, ctx).await?;
    let tenant = Tenant::new(object, inputs.id.clone());
    let uid = &tenant.id.uid;
    // The compiler refuses every call of a tenant that is being deleted.
    ctx.shared_state.request_compilation(uid);
    let runtime_namespace = match &inputs.runtime_namespace {
        Found::There { uid: namespace, labels, terminating: false, .. } => {
            (labels.get(labels::TENANT_UID) == Some(uid)).then_some(namespace)
        }
        _ => None,
    };
    if runtime_namespace.is_some() && !stop_pods(ctx, &tenant).await? {
        status::write(ctx, object, &Outcome::Deleting("waiting for the pods to end")).await?;
        return Ok(Teardown::Unfinished(pause(&object.metadata, Timestamp::now())));
    }
    let state = OwnerState::read::<MCPTenant>(&ctx.client, None, &tenant.id.name, uid).await?;
    let Some(proof) = state.torn_down(object.metadata.generation) else {
        tracing::info!("the cache lags behind, so nothing is deleted yet");
        return Ok(Teardown::Unfinished(pause(&object.metadata, Timestamp::now())));
    };
    if runtime_namespace.is_some() {
        delete_secrets(ctx, &proof, &tenant.runtime_namespace, labels::TENANT_UID).await?;
    }
    ctx.keys.delete(&proof).await?;
    ctx.revocations.delete(&tenant.id.name, &proof).await?;
    if let Some(namespace) = runtime_namespace {
        let namespaces = ApiResource::erase::<Namespace>(&());
        delete(&ctx.client, &proof, &namespaces, None, &tenant.runtime_namespace, Some(namespace)).await?;
    }
    clean_namespace(ctx, object, &tenant, &inputs, &proof).await?;
    ctx.shared_state.remove_tenant(uid);
    ctx.shared_state.policies.remove_homes(uid);
    ctx.shared_state.request_compilation(uid);
    ctx.events.normal(object, "TornDown", "Delete", format!("the tenant {} is torn down", tenant.id.name)).await;
    Ok(Teardown::Done)
}

/// Scales the workloads of the runtime namespace to zero. Returns whether all pods have ended.
async fn stop_pods(ctx: &Context, tenant: &Tenant) -> Result<bool, ReconcileError> {
    let runtime = &tenant.runtime_namespace;
    restore_access(ctx, |settings| access::to_runtime(tenant, settings)).await?;
    let mut owned = ctx.cache.owned.with_label(labels::TENANT_UID, &tenant.id.uid);
    owned.retain(|(key, _)| key.namespace == *runtime);
    scale_to_zero(ctx, &owned).await?;
    Ok(!has_pods(ctx, runtime, labels::MANAGED_SELECTOR).await?)
}

/// Restores the binding that lets the operator work in a namespace. Returns the binding's UID.
async fn restore_access(
    ctx: &Context,
    render: impl FnOnce(&Settings) -> Rendered,
) -> Result<Option<String>, ReconcileError> {
    // A binding does not contain the address.
    let address = ctx.config.service_address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let settings = Settings::new(&ctx.config, address);
    let applied = apply_reserved(&ctx.client, &render(&settings)).await?;
    Ok(applied.live["metadata"]["uid"].as_str().map(str::to_owned))
}

/// Deletes what the operator made in the tenant's own namespace, and the namespace itself where the tenant asks for that.
async fn clean_namespace(
    ctx: &Context,
    object: &MCPTenant,
    tenant: &Tenant,
    inputs: &Inputs,
    proof: &ProvenUnwanted,
) -> Result<(), ReconcileError> {
    let (namespace, uid) = (&tenant.namespace, &tenant.id.uid);
    let Found::There { uid: namespace_uid, labels, terminating: false, .. } = &inputs.tenant_namespace else {
        return Ok(());
    };
    if inputs.older_claim.is_some() || labels.get(labels::TENANT) != Some(&tenant.id.name) {
        return Ok(());
    }
    let mut owned = ctx.cache.owned.with_label(labels::TENANT_UID, uid);
    owned.retain(|(key, _)| key.namespace == *namespace && is_managed(key, namespace, &tenant.runtime_namespace));
    let binding =
        if owned.is_empty() { None } else { restore_access(ctx, |settings| access::to_own(tenant, settings)).await? };
    if binding.is_some() {
        delete_secrets(ctx, proof, namespace, labels::TENANT_UID).await?;
    }
    if deletes_namespace(object, &inputs.tenant_namespace) {
        let namespaces = ApiResource::erase::<Namespace>(&());
        delete(&ctx.client, proof, &namespaces, None, namespace, Some(namespace_uid)).await?;
        return Ok(());
    }
    let Some(binding) = binding else { return Ok(()) };
    delete_ceilings(ctx, tenant, proof).await?;
    owned.retain(|(key, _)| key.name != OPERATOR_BINDING);
    delete_owned(&ctx.client, proof, owned).await?;
    // The binding goes last: it permits the other deletions.
    let bindings = ApiResource::erase::<RoleBinding>(&());
    delete(&ctx.client, proof, &bindings, Some(namespace), OPERATOR_BINDING, Some(&binding)).await?;
    Ok(())
}

/// Deletes the copy of the tenant's upper limits. It is not in the index: the operator has no right to watch
/// `ConfigMap`s.
async fn delete_ceilings(ctx: &Context, tenant: &Tenant, proof: &ProvenUnwanted) -> Result<(), ReconcileError> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &tenant.namespace);
    let found = api.get_metadata_opt(CEILINGS).await.map_err(ReconcileError::api("read the copy of the limits"))?;
    let Some(found) = found else { return Ok(()) };
    if found.metadata.labels.unwrap_or_default().get(labels::TENANT_UID) != Some(&tenant.id.uid) {
        return Ok(());
    }
    let resource = ApiResource::erase::<ConfigMap>(&());
    let uid = found.metadata.uid.as_deref();
    Ok(delete(&ctx.client, proof, &resource, Some(&tenant.namespace), CEILINGS, uid).await?)
}
