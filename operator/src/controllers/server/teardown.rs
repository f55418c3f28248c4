//! The teardown of a server: its pods end first, then the workspace is retained or deleted, then what the pods were made
//! with goes, and their network policy last.

use jiff::Timestamp;
use mcp_fleet_core::labels;
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::server::WorkspaceRetention;

use super::{status, workspace};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::finalizer::Teardown;
use crate::controllers::identity::ObjectId;
use crate::controllers::outcome::Outcome;
use crate::controllers::teardown::{delete_secrets, has_pods, pause, scale_to_zero};
use crate::kubernetes::cache::{Cache, Key, Meta};
use crate::kubernetes::deletion::{OwnerState, ProvenUnwanted, delete_owned};

/// Continues the teardown of a server.
pub(super) async fn tear_down(object: &MCPServer, ctx: &Context) -> Result<Teardown, ReconcileError> {
    let ObjectId { name, uid } = ObjectId::of(&object.metadata)?;
    // In other namespaces than a runtime namespace anybody can set our labels.
    let mut owned = ctx.cache.owned.with_label(labels::SERVER_UID, &uid);
    owned.retain(|(key, _)| ctx.cache.is_runtime(&key.namespace));
    // Without a runtime namespace nothing is left.
    let Some(runtime) = runtime_namespace(object, &owned, &ctx.cache) else { return Ok(Teardown::Done) };
    scale_to_zero(ctx, &owned).await?;
    if has_pods(ctx, &runtime, &format!("{}={uid}", labels::SERVER_UID)).await? {
        status::write(ctx, object, &Outcome::Deleting("waiting for the pods to end"), None).await?;
        return Ok(Teardown::Unfinished(pause(&object.metadata, Timestamp::now())));
    }
    let state = OwnerState::read::<MCPServer>(&ctx.client, object.metadata.namespace.as_deref(), &name, &uid).await?;
    let Some(proof) = state.torn_down(object.metadata.generation) else {
        tracing::info!("the cache lags behind, so nothing is deleted yet");
        return Ok(Teardown::Unfinished(pause(&object.metadata, Timestamp::now())));
    };
    // The last spec of a server that is gone is unknown, so its workspace stays.
    let discards = object.spec.workspace.as_ref().is_some_and(|it| it.retain == WorkspaceRetention::Delete)
        && state.gone().is_none();
    if discards {
        workspace::discard(ctx, &runtime, &proof).await?;
    } else {
        retain_workspace(ctx, object, &runtime, &proof).await?;
    }
    delete_secrets(ctx, &proof, &runtime, labels::SERVER_UID).await?;
    delete_owned(&ctx.client, &proof, owned).await?;
    Ok(Teardown::Done)
}

/// Marks the volume claim of the server's workspace as retained, and reports where it is.
async fn retain_workspace(
    ctx: &Context,
    object: &MCPServer,
    runtime: &str,
    proof: &ProvenUnwanted,
) -> Result<(), ReconcileError> {
    for claim in workspace::retain(ctx, runtime, proof, Timestamp::now()).await? {
        let note = format!("the workspace stays in the volume claim {claim} in the namespace {runtime}");
        ctx.events.normal(object, "WorkspaceRetained", "Delete", note).await;
    }
    Ok(())
}

/// Returns the runtime namespace in which the server's objects are; none if it does not exist.
fn runtime_namespace(object: &MCPServer, owned: &[(Key, Meta)], cache: &Cache) -> Option<String> {
    let of_tenant = || {
        let tenant = cache.tenant_of_namespace(object.metadata.namespace.as_deref()?)?;
        Some(tenant.runtime_namespace()).filter(|runtime| cache.is_runtime(runtime))
    };
    owned.first().map(|(key, _)| key.namespace.clone()).or_else(of_tenant)
}
