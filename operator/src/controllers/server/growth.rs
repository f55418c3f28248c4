//! The size of a workspace's volume, if the spec asks for another one than its claim was made with. Kubernetes never lets the claim
//! template of a `StatefulSet` change, so the claim itself is changed.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use mcp_fleet_core::labels;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::quantity::billionths;
use serde_json::json;

use super::validate::Server;
use super::workspace::Volume;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::kubernetes::FIELD_MANAGER;

/// How often a volume is looked at that does not have the wanted size yet. Claims are not watched.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// How far the growth of a volume has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// The volume has the wanted size.
    Done,
    /// The volume is being made larger. The text says what it waits for.
    Expanding(String),
    /// Kubernetes refuses to make it larger, and says why.
    Refused(String),
    /// It is larger than what is wanted.
    Larger(String),
}

/// What has to be done about a claim.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Patch,
    Nothing(Growth),
}

/// Has the volume of a server's workspace made as large as its spec says. None if that is the size with which it was made.
pub(super) async fn grow(ctx: &Context, server: &Server) -> Result<Option<Growth>, ReconcileError> {
    let Some(Volume { claim, wanted: Some(wanted), .. }) = &server.workspace else { return Ok(None) };
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &server.runtime_namespace);
    let selector = format!("{}={}", labels::SERVER_UID, server.id.uid);
    let claims = api.list(&ListParams::default().labels(&selector)).await;
    let claims = claims.map_err(ReconcileError::api("list the volume claims"))?.items;
    let name = format!("{}-{}-0", claim.template, server.object_name());
    let Some(claim) = claims.into_iter().find(|claim| claim.metadata.name.as_ref() == Some(&name)) else {
        return Ok(Some(Growth::Expanding("the volume claim does not exist yet".into())));
    };
    let growth = match step(&claim, wanted) {
        Step::Nothing(growth) => growth,
        Step::Patch => {
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
            let change = json!({
                "metadata": {"resourceVersion": claim.metadata.resource_version},
                "spec": {"resources": {"requests": {"storage": wanted}}},
            });
            match api.patch(&name, &params, &Patch::Merge(change)).await {
                Ok(_) => Growth::Expanding("the storage driver was asked".into()),
                Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
                    Growth::Refused(why(&status.message).to_owned())
                }
                Err(source) => return Err(ReconcileError::Api { verb: "make a volume claim larger", source }),
            }
        }
    };
    Ok(Some(growth))
}

/// Decides what has to be done about a claim. Pure.
fn step(claim: &PersistentVolumeClaim, wanted: &Quantity) -> Step {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let requested = requests.and_then(|requests| requests.get("storage"));
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref()?.get("storage"));
    let size = |quantity: Option<&Quantity>| quantity.and_then(|quantity| billionths(&quantity.0)).unwrap_or(0);
    let (requested_size, wanted_size) = (size(requested), size(Some(wanted)));
    if requested_size < wanted_size {
        return Step::Patch;
    }
    if requested_size > wanted_size {
        let has = requested.map(|quantity| quantity.0.clone()).unwrap_or_default();
        return Step::Nothing(Growth::Larger(has));
    }
    if size(capacity) >= wanted_size {
        return Step::Nothing(Growth::Done);
    }
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let newest = conditions.max_by_key(|condition| condition.last_transition_time.as_ref().map(|time| time.0));
    let why = newest.and_then(|condition| condition.message.as_deref().filter(|message| !message.is_empty()));
    Step::Nothing(Growth::Expanding(why.unwrap_or("the storage driver was asked").to_owned()))
}

/// Returns what an API server says about a claim, without the name of it.
fn why(message: &str) -> &str {
    message.split_once(" is forbidden: ").map_or(message, |(_, why)| why)
}

/// Returns the condition.
pub(super) fn condition(growth: &Growth) -> NewCondition {
    let no = |reason, message: String| NewCondition::no(ConditionType::WorkspaceCurrent, reason, message);
    match growth {
        Growth::Done => NewCondition::yes(ConditionType::WorkspaceCurrent, Reason::Reconciled, ""),
        Growth::Expanding(why) => no(Reason::Expanding, format!("the volume is being made larger: {why}")),
        Growth::Refused(why) => no(
            Reason::ExpansionRefused,
            format!(
                "Kubernetes does not make the volume larger: {why}; lower workspace.storage again, or ask the platform team for \
                 a StorageClass with allowVolumeExpansion or for quota"
            ),
        ),
        Growth::Larger(has) => no(
            Reason::CannotShrink,
            format!("the volume has {has} and cannot shrink; raise workspace.storage to that again"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn claim(requested: &str, status: &Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "c"},
            "spec": {"resources": {"requests": {"storage": requested}}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_claim_is_changed_once_and_the_driver_does_the_rest() {
        let capacity = |size: &str| json!({"capacity": {"storage": size}});
        let wanted = Quantity("2Gi".into());
        assert_eq!(step(&claim("1Gi", &capacity("1Gi")), &wanted), Step::Patch);
        assert_eq!(step(&claim("2048Mi", &capacity("2Gi")), &wanted), Step::Nothing(Growth::Done));
        assert_eq!(step(&claim("3Gi", &capacity("1Gi")), &wanted), Step::Nothing(Growth::Larger("3Gi".into())));
        let asked = Growth::Expanding("the storage driver was asked".into());
        assert_eq!(step(&claim("2Gi", &capacity("1Gi")), &wanted), Step::Nothing(asked));
        let mut status = capacity("1Gi");
        status["conditions"] = json!([
            {"type": "Resizing", "status": "True", "lastTransitionTime": "2026-11-22T12:00:00Z"},
            {"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": "2026-11-22T12:00:01Z", "message": "waiting for a pod"},
        ]);
        let pending = Growth::Expanding("waiting for a pod".into());
        assert_eq!(step(&claim("2Gi", &status), &wanted), Step::Nothing(pending));
    }
}
