//! What runs for a server whose program cannot be what its spec says: the tenant does not allow its image, or something is missing
//! that it is configured with.
//!
//! The program is read back from the workload, so that certificate, network policy and shim are maintained while no change of it
//! is applied. Where its pods run still follows the tenant: otherwise a server that is kept rejected would keep pods that
//! `serverPods` does not admit any more. The tenant's `enforcement` decides whether it goes on running.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use mcp_fleet_core::labels;
use mcp_fleet_core::policy::images::AllowedImages;
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::Enforcement;
use serde_json::Value;

use super::Decision;
use super::dereference::Inputs;
use super::desired::TOOL;
use super::program::Program;
use super::validate::{Server, object_name, volume};
use super::workspace::Volume;
use super::{placement, pull};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::outcome::Rejection;
use crate::kubernetes::apply::{ApplyError, is_foreign};

/// Decides what is done for a rejected server. If it was rejected because of its program, what runs for it is maintained, and the
/// rejection says what happens to that.
pub(super) async fn decide(
    ctx: &Context,
    object: &MCPServer,
    inputs: &Inputs,
    mut rejection: Rejection,
) -> Result<Decision, ReconcileError> {
    if is_about_program(rejection.reason)
        && inputs.prepared
        && object.metadata.deletion_timestamp.is_none()
        && let Some(live) = workload(ctx, object, inputs).await?
        && let Some((server, note)) = maintained(&live, object, inputs)
    {
        rejection.message += note;
        return Ok(Decision::Maintain(server, rejection));
    }
    Ok(Decision::Reject(rejection))
}

/// Whether a server was rejected because of what its program is, and could be again what it was.
const fn is_about_program(reason: ConditionReason) -> bool {
    use ConditionReason::{
        ConfigNotFound, ConfigRefused, ImageNotAllowed, ImageNotPinned, InvalidSpec, PodNotAllowed, Progressing,
        StorageClassNotAllowed,
    };
    matches!(
        reason,
        ImageNotAllowed
            | ImageNotPinned
            | PodNotAllowed
            | StorageClassNotAllowed
            | ConfigNotFound
            | ConfigRefused
            | InvalidSpec
            | Progressing
    )
}

/// Reads the workload of a server.
async fn workload(ctx: &Context, object: &MCPServer, inputs: &Inputs) -> Result<Option<Value>, ReconcileError> {
    let Some(owner) = &inputs.owner else { return Ok(None) };
    let resource = if object.spec.workspace.is_some() {
        ApiResource::erase::<StatefulSet>(&())
    } else {
        ApiResource::erase::<Deployment>(&())
    };
    let api: Api<DynamicObject> =
        Api::namespaced_with(ctx.client.clone(), &owner.tenant.runtime_namespace(), &resource);
    let live = api.get_opt(&object_name(&inputs.id.name)).await.map_err(ReconcileError::api("read the workload"))?;
    Ok(live.map(serde_json::to_value).transpose().map_err(ApplyError::from)?)
}

/// Returns the server that a workload was made for, and what happens to it. Pure.
fn maintained(live: &Value, object: &MCPServer, inputs: &Inputs) -> Option<(Server, &'static str)> {
    let owner = inputs.owner.as_ref()?;
    // What someone else wrote there was never accepted.
    if live["metadata"]["labels"][labels::SERVER_UID] != inputs.id.uid.as_str() || is_foreign(live) {
        return None;
    }
    let containers = live.pointer("/spec/template/spec/containers")?.as_array()?;
    let tool = containers.iter().find(|container| container["name"] == TOOL)?;
    let template = live.pointer("/spec/template")?;
    let program = Program::read(template, tool)?;
    let live_pod = placement::read(template)?;
    let replicas = u32::try_from(live["spec"]["replicas"].as_u64()?).ok()?;
    let spec = &owner.tenant.spec;
    // Mostly, the server is rejected because of something else, and its pods can be as its spec and its tenant say.
    let (pod, conflicts) = if let Ok(pod) = placement::narrow(&spec.server_pods, &object.spec.pod) {
        (pod, false)
    } else {
        let conflicts = placement::narrow(&spec.server_pods, &live_pod).is_err();
        (placement::impose(&spec.server_pods, live_pod), conflicts)
    };
    let is_stopped = spec.enforcement == Enforcement::ScaleToZero
        && (inputs.missing_resource.is_some()
            || AllowedImages::new(&spec.images).check(&program.image).is_err()
            || conflicts);
    let note = if is_stopped {
        "; its pods are stopped, because the tenant's enforcement is ScaleToZero"
    } else if replicas == 0 {
        "; no pod of it runs"
    } else {
        "; what was accepted before goes on running"
    };
    let server = Server {
        id: inputs.id.clone(),
        tenant: owner.id.clone(),
        runtime_namespace: owner.tenant.runtime_namespace(),
        program: Box::new(program),
        config: None,
        pod: Box::new(pod),
        pull_secrets: pull::read(object, &owner.tenant, template),
        workspace: volume(object, inputs).map(|volume| Volume { wanted: None, ..volume }),
        // It can be stopped and made smaller, but not started or made larger.
        replicas: if is_stopped { 0 } else { replicas.min(object.spec.replicas) },
        stopped: None,
    };
    Some((server, note))
}
