//! The end of a tenant, in an order that leaves no pod without its fences: stop the pods, then take the secrets, then
//! the runtime namespace with its policies, and the tenant's namespace last, if it is to go at all.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPTenant;
use serde_json::json;

use super::apply::is_place_of_ours;
use super::dereference::{Facts, Found};
use super::desired::binding;
use super::status::{self, Judged};
use super::validate::{Tenant, deletes_namespace};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::settings::Settings;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::apply::{ApplyError, apply, delete};
use crate::kubernetes::cache::{OPERATOR_BINDING, resource_of};
use crate::kubernetes::labels;

/// How soon to look again whether the pods have gone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Goes on with the teardown. Answers after how long to look again, or none when it is done.
pub(crate) async fn tear_down(
    object: &MCPTenant,
    facts: &Facts,
    ctx: &Context,
) -> Result<Option<Duration>, ReconcileError> {
    let uid = object.metadata.uid.as_deref().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    let (name, runtime) = (object.name_any(), object.runtime_namespace());
    let is_ours = |found: &Found| {
        matches!(found, Found::There { labels, terminating: false, .. }
            if labels.get(labels::TENANT_UID).is_some_and(|found| found == uid))
    };
    // The compiler refuses every call of a tenant that is being deleted.
    ctx.shared_state.request_compilation(uid);
    if is_ours(&facts.runtime_namespace) {
        restore_access(object, ctx, &runtime).await?;
        stop(ctx, uid, &runtime).await?;
        let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &runtime);
        let left = pods
            .list_metadata(&ListParams::default().labels(labels::MANAGED_SELECTOR))
            .await
            .map_err(ReconcileError::api("list the pods"))?;
        if !left.items.is_empty() {
            status::write(ctx, object, &Judged::Leaving("waiting for the pods to end")).await?;
            return Ok(Some(LOOK_AGAIN));
        }
        delete_secrets(ctx, &runtime, uid).await?;
    }
    ctx.keys.delete(uid).await?;
    ctx.revocations.delete(&name, uid).await?;
    if is_ours(&facts.runtime_namespace) {
        delete(&ctx.client, &ApiResource::erase::<Namespace>(&()), None, &runtime, None).await?;
    }
    leave_namespace(object, facts, ctx, uid).await?;
    ctx.shared_state.remove_tenant(uid);
    ctx.shared_state.request_compilation(uid);
    crate::controllers::status::release(&Api::<MCPTenant>::all(ctx.client.clone()), object).await?;
    ctx.events.normal(object, "TornDown", "Delete", format!("the tenant {name} is gone")).await;
    Ok(None)
}

/// Puts the binding back that lets us work in a namespace, should it be gone. Answers whether it is there, and ours.
async fn restore_access(object: &MCPTenant, ctx: &Context, namespace: &str) -> Result<bool, ReconcileError> {
    // A binding does not hold the address.
    let address = ctx.config.service_address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let settings = Settings::new(&ctx.config, address);
    let Some(want) = binding(&Tenant::claimed(object)?, &settings, namespace) else { return Ok(false) };
    match apply(&ctx.client, &want).await {
        Ok(_) => Ok(true),
        Err(error @ ApplyError::NotOurs { .. }) => {
            tracing::warn!(error = crate::error::chain(&error), "what is left in the namespace stays there");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Scales everything in the runtime namespace to zero.
async fn stop(ctx: &Context, uid: &str, runtime: &str) -> Result<(), ReconcileError> {
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    for (key, _) in ctx.cache.owned.with_label(labels::TENANT_UID, uid) {
        let scaled = matches!(key.kind.as_str(), "Deployment" | "StatefulSet") && key.namespace == runtime;
        let Some(resource) = scaled.then(|| resource_of(&key.kind)).flatten() else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), runtime, &resource);
        match api.patch(&key.name, &params, &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => return Err(ReconcileError::Api { verb: "scale a workload to zero", source }),
        }
    }
    Ok(())
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

/// Takes what is ours out of the tenant's namespace, or the namespace itself where that was asked for.
async fn leave_namespace(object: &MCPTenant, facts: &Facts, ctx: &Context, uid: &str) -> Result<(), ReconcileError> {
    let namespace = &object.spec.namespace.name;
    let claimed = facts.older_claim.is_none()
        && matches!(&facts.tenant_namespace, Found::There { labels, terminating: false, .. }
            if labels.get(labels::TENANT) == object.metadata.name.as_ref());
    if !claimed {
        return Ok(());
    }
    let mut ours = ctx.cache.owned.with_label(labels::TENANT_UID, uid);
    ours.retain(|(key, _)| {
        key.namespace == *namespace && is_place_of_ours(key, namespace, &object.runtime_namespace())
    });
    if ours.is_empty() || !restore_access(object, ctx, namespace).await? {
        ours.clear();
    } else {
        delete_secrets(ctx, namespace, uid).await?;
    }
    if deletes_namespace(object, &facts.tenant_namespace) {
        delete(&ctx.client, &ApiResource::erase::<Namespace>(&()), None, namespace, None).await?;
        return Ok(());
    }
    if ours.is_empty() {
        return Ok(());
    }
    let (last, first): (Vec<_>, Vec<_>) = ours.into_iter().partition(|(key, _)| key.name == OPERATOR_BINDING);
    for (key, meta) in first {
        if let Some(resource) = resource_of(&key.kind) {
            delete(&ctx.client, &resource, Some(namespace), &key.name, Some(&meta.uid)).await?;
        }
    }
    // The binding goes last: it is what lets us delete the rest. One that was put back is not in the index yet.
    let uid = last.first().map(|(_, meta)| meta.uid.as_str());
    delete(&ctx.client, &ApiResource::erase::<RoleBinding>(&()), Some(namespace), OPERATOR_BINDING, uid).await?;
    Ok(())
}
