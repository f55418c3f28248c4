//! The size of a workspace's volume, if the spec asks for another one than its claim was made with. Kubernetes never lets the claim
//! template of a `StatefulSet` change, so the claim itself is changed.

use std::cmp::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::Status;
use mcp_fleet_core::labels;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition, find};
use mcp_fleet_crds::quantity::billionths;
use serde_json::json;

use super::validate::Server;
use super::workspace::Volume;
use crate::context::Context;
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
    /// Kubernetes refuses the size, and says why.
    Refused(String),
    /// It has this size, which is larger than what is wanted.
    Larger(String),
    /// The API server could not be asked.
    Unknown,
}

/// What has to be done about a claim.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Patch,
    Nothing(Growth),
}

/// Has the volume of a server's workspace made as large as its spec says. None if that is the size with which it was made. Nothing
/// else waits for a volume, so no failure is one of the reconcile.
pub(super) async fn grow(ctx: &Context, server: &Server) -> Option<Growth> {
    let Some(Volume { claim, wanted: Some(wanted), .. }) = &server.workspace else { return None };
    let name = format!("{}-{}-0", claim.template, server.object_name());
    Some(change(ctx, server, &name, wanted).await.unwrap_or_else(|error| failed(&error)))
}

async fn change(ctx: &Context, server: &Server, name: &str, wanted: &Quantity) -> kube::Result<Growth> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &server.runtime_namespace);
    // The operator may list claims, but not get them.
    let one = ListParams::default()
        .labels(&format!("{}={}", labels::SERVER_UID, server.id.uid))
        .fields(&format!("metadata.name={name}"));
    let claims = api.list(&one).await?.items;
    let Some(claim) = claims.into_iter().find(|claim| claim.metadata.name.as_deref() == Some(name)) else {
        return Ok(Growth::Expanding("the volume claim does not exist yet".into()));
    };
    Ok(match step(&claim, wanted) {
        Step::Nothing(growth) => growth,
        Step::Patch => {
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
            let change = json!({
                "metadata": {"resourceVersion": claim.metadata.resource_version},
                "spec": {"resources": {"requests": {"storage": wanted}}},
            });
            api.patch(name, &params, &Patch::Merge(change)).await?;
            Growth::Expanding("the storage driver was asked".into())
        }
    })
}

/// Returns what a failure says of the growth.
fn failed(error: &kube::Error) -> Growth {
    match error {
        // Others are over when it is tried again: the claim was changed or deleted, or there are too many requests.
        kube::Error::Api(status) if is_refusal(status) => Growth::Refused(why(&status.message).to_owned()),
        error => {
            tracing::warn!(error = %error, "failed to change the size of a volume claim");
            Growth::Unknown
        }
    }
}

fn is_refusal(status: &Status) -> bool {
    (400..500).contains(&status.code) && ![404, 409, 429].contains(&status.code)
}

/// Decides what has to be done about a claim. Pure.
fn step(claim: &PersistentVolumeClaim, wanted: &Quantity) -> Step {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let requested = requests.and_then(|requests| requests.get("storage"));
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref()?.get("storage"));
    let size = |quantity: Option<&Quantity>| quantity.and_then(|quantity| billionths(&quantity.0)).unwrap_or(0);
    let (requested_size, wanted_size) = (size(requested), size(Some(wanted)));
    if let Some(capacity) = capacity.filter(|capacity| size(Some(capacity)) > wanted_size) {
        return Step::Nothing(match requested_size.cmp(&wanted_size) {
            // A driver may give more than was asked.
            Ordering::Less => return Step::Patch,
            Ordering::Equal => Growth::Done,
            Ordering::Greater => Growth::Larger(capacity.0.clone()),
        });
    }
    // It may already have the size, while the driver is asked for more. Kubernetes takes no request for what a volume has.
    if size(capacity) == wanted_size && requested_size >= wanted_size {
        return Step::Nothing(Growth::Done);
    }
    // A request for more that was not fulfilled can be taken back.
    if requested_size != wanted_size {
        return Step::Patch;
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

/// Returns the condition. What is not known is as it was before.
pub(super) fn condition(growth: &Growth, before: &[Condition]) -> NewCondition {
    let no = |reason, message: String| NewCondition::no(ConditionType::WorkspaceCurrent, reason, message);
    match growth {
        Growth::Done => NewCondition::yes(ConditionType::WorkspaceCurrent, Reason::Reconciled, ""),
        Growth::Expanding(why) => no(Reason::Expanding, format!("the volume is being made larger: {why}")),
        Growth::Refused(why) => no(
            Reason::ExpansionRefused,
            format!(
                "Kubernetes refuses the size of the volume: {why}; set workspace.storage back, or ask the platform team for a \
                 StorageClass with allowVolumeExpansion or for quota"
            ),
        ),
        Growth::Unknown => {
            let known = [Reason::Expanding, Reason::ExpansionRefused, Reason::CannotShrink];
            let before = find(before, ConditionType::WorkspaceCurrent);
            let reason = |it: &Condition| known.into_iter().find(|known| known.as_str() == it.reason);
            match before.and_then(|it| Some((reason(it)?, it.message.clone()))) {
                Some((reason, message)) => no(reason, message),
                None => no(Reason::Expanding, "the volume claim could not be changed yet; it is tried again".into()),
            }
        }
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
        assert_eq!(step(&claim("1Gi", &capacity("2Gi")), &Quantity("1Gi".into())), Step::Nothing(Growth::Done));
        assert_eq!(step(&claim("4Gi", &capacity("3Gi")), &wanted), Step::Nothing(Growth::Larger("3Gi".into())));
        assert_eq!(step(&claim("1Gi", &capacity("3Gi")), &wanted), Step::Patch);
        // A request for more that the driver did not fulfill.
        assert_eq!(step(&claim("4Gi", &capacity("1Gi")), &wanted), Step::Patch);
        assert_eq!(step(&claim("4Gi", &json!({})), &wanted), Step::Patch);
        assert_eq!(step(&claim("4Gi", &capacity("2Gi")), &wanted), Step::Nothing(Growth::Done));
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
