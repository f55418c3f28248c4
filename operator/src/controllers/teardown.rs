//! Steps that the teardown of tenants and of servers have in common.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use mcp_fleet_core::retry::jittered;
use serde_json::{Value, json};

use super::error::ReconcileError;
use crate::context::Context;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Key, Meta, resource_of};
use crate::kubernetes::deletion::{ProvenUnwanted, delete};

/// Pauses between checks whether the pods have ended, at first and at most. Pods are not watched.
const CHECK_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Returns the pause before the teardown of an object continues. It grows with the time since the object was deleted: the
/// pods of a lost node do not end before someone deletes the node, and thousands of objects may wait for that.
pub(crate) fn pause(metadata: &ObjectMeta, now: Timestamp) -> Duration {
    let deleted_at = metadata.deletion_timestamp.as_ref().map_or(now, |deleted_at| deleted_at.0);
    let waited = Duration::try_from(now.duration_since(deleted_at)).unwrap_or_default();
    jittered((waited / 8).clamp(CHECK_PAUSES.0, CHECK_PAUSES.1))
}

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

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_teardown_that_waits_for_long_is_continued_less_often() {
        let deleted_at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let object = ObjectMeta { deletion_timestamp: Some(Time(deleted_at)), ..ObjectMeta::default() };
        let after = |seconds: u64| pause(&object, deleted_at + Duration::from_secs(seconds)).as_secs_f64();
        assert!(after(0) <= 0.625 && after(4) <= 0.625);
        assert!((5.6..9.4).contains(&after(60)));
        assert!((22.5..=37.5).contains(&after(3600)));
        // The clock of this replica is behind.
        assert!(pause(&object, deleted_at - Duration::from_secs(9)) <= Duration::from_millis(625));
    }
}
