//! Steps that the teardown of tenants and of servers have in common.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::error::ReconcileError;
use crate::context::Context;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Key, Meta, resource_of};
use crate::kubernetes::deletion::{ProvenUnwanted, delete};

/// Pause between checks whether the pods have ended. Pods are not watched.
pub(crate) const POD_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Scales every workload among the objects to zero. From then on a `StatefulSet` does not own its volume claims, so that
/// they do not go with it. The UID keeps the patch from an object of a later owner of the same name.
pub(crate) async fn scale_to_zero(ctx: &Context, owned: &[(Key, Meta)]) -> Result<(), ReconcileError> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    for (key, meta) in owned {
        let spec = match key.kind.as_str() {
            "Deployment" => json!({"replicas": 0}),
            "StatefulSet" => json!({"replicas": 0, "persistentVolumeClaimRetentionPolicy": claim_retention()}),
            _ => continue,
        };
        let Some(resource) = resource_of(&key.kind) else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
        match api.patch(&key.name, &params, &Patch::Merge(json!({"metadata": {"uid": meta.uid}, "spec": spec}))).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => return Err(ReconcileError::Api { verb: "scale a workload to zero", source }),
        }
    }
    Ok(())
}

/// Returns whether a namespace has pods that match a label selector.
pub(crate) async fn has_pods(ctx: &Context, namespace: &str, selector: &str) -> Result<bool, ReconcileError> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let found = pods.list_metadata(&ListParams::default().labels(selector)).await;
    Ok(!found.map_err(ReconcileError::api("list the pods"))?.items.is_empty())
}

/// Returns the policy with which a `StatefulSet` never owns its volume claims. Only the operator deletes a claim.
pub(crate) fn claim_retention() -> Value {
    json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
}

/// Deletes the Secrets in a namespace on which a label has the UID of the owner that the proof is about.
pub(crate) async fn delete_secrets(
    ctx: &Context,
    proof: &ProvenUnwanted,
    namespace: &str,
    owner_label: &str,
) -> Result<(), ReconcileError> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("{owner_label}={}", proof.owner_uid()));
    let resource = ApiResource::erase::<Secret>(&());
    for secret in api.list_metadata(&ours).await.map_err(ReconcileError::api("list our Secrets"))? {
        let uid = secret.metadata.uid.as_deref();
        delete(&ctx.client, proof, &resource, Some(namespace), &secret.name_any(), uid).await?;
    }
    Ok(())
}
