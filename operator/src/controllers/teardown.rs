//! Steps that the teardown of tenants and of servers have in common.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;

use super::error::ReconcileError;
use crate::context::Context;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Key, Meta, resource_of};

/// Pause between checks whether the pods have ended. Pods are not watched.
pub(crate) const POD_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Scales every workload among the objects to zero.
pub(crate) async fn scale_to_zero(ctx: &Context, owned: &[(Key, Meta)]) -> Result<(), ReconcileError> {
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    for (key, _) in owned {
        let is_workload = matches!(key.kind.as_str(), "Deployment" | "StatefulSet");
        let Some(resource) = is_workload.then(|| resource_of(&key.kind)).flatten() else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
        match api.patch(&key.name, &params, &patch).await {
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
