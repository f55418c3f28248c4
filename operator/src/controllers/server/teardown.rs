//! The end of a server: its pods first, then what they were made with, their network policy last.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPServer;
use serde_json::json;

use super::status::{self, Judged};
use super::validate::object_name;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::tls_secret_name;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::apply::delete;
use crate::kubernetes::cache::resource_of;
use crate::kubernetes::labels;

/// How soon to look again whether the pods have gone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Goes on with the teardown. Answers after how long to look again, or none when it is done.
pub(crate) async fn tear_down(object: &MCPServer, ctx: &Context) -> Result<Option<Duration>, ReconcileError> {
    let uid = object.metadata.uid.as_deref().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    // What is not in the index is gone, or goes with its namespace. Elsewhere anybody can write our labels.
    let mut left = ctx.cache.owned.with_label(labels::SERVER_UID, uid);
    left.retain(|(key, _)| ctx.cache.is_runtime(&key.namespace));
    let is_workload = |kind: &str| matches!(kind, "Deployment" | "StatefulSet");
    for (key, _) in left.iter().filter(|(key, _)| is_workload(&key.kind)) {
        let Some(resource) = resource_of(&key.kind) else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match api.patch(&key.name, &params, &Patch::Merge(json!({"spec": {"replicas": 0}}))).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => return Err(ReconcileError::Api { verb: "scale a workload to zero", source }),
        }
    }
    if let Some((key, _)) = left.first() {
        let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &key.namespace);
        let ours = ListParams::default().labels(&format!("{}={uid}", labels::SERVER_UID));
        let pods = pods.list_metadata(&ours).await.map_err(ReconcileError::api("list the pods"))?;
        if !pods.items.is_empty() {
            status::write(ctx, object, &Judged::Leaving("waiting for the pods to end")).await?;
            return Ok(Some(LOOK_AGAIN));
        }
        let secret = tls_secret_name(&object_name(&object.name_any()));
        delete(&ctx.client, &ApiResource::erase::<Secret>(&()), Some(&key.namespace), &secret, None).await?;
    }
    left.sort_by_key(|(key, _)| key.kind == "NetworkPolicy");
    for (key, meta) in left {
        if let Some(resource) = resource_of(&key.kind) {
            delete(&ctx.client, &resource, Some(&key.namespace), &key.name, Some(&meta.uid)).await?;
        }
    }
    let api = crate::controllers::status::namespaced::<MCPServer>(&ctx.client, &object.namespace().unwrap_or_default());
    crate::controllers::status::release(&api, object).await?;
    Ok(None)
}
