//! The teardown of a server: its pods end first, then what they were made with goes, and their network policy last.

use mcp_fleet_crds::MCPServer;

use super::status;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::finalizer::Teardown;
use crate::controllers::identity::ObjectId;
use crate::controllers::outcome::Outcome;
use crate::controllers::teardown::{POD_CHECK_INTERVAL, delete_secrets, has_pods, scale_to_zero};
use crate::kubernetes::cache::{Cache, Key, Meta};
use crate::kubernetes::deletion::{OwnerState, delete_owned};
use crate::kubernetes::labels;

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
        status::write(ctx, object, &Outcome::Deleting("waiting for the pods to end")).await?;
        return Ok(Teardown::Unfinished(POD_CHECK_INTERVAL));
    }
    let state = OwnerState::read::<MCPServer>(&ctx.client, object.metadata.namespace.as_deref(), &name, &uid).await?;
    let Some(proof) = state.torn_down(object.metadata.generation) else {
        tracing::info!("the cache lags behind, so nothing is deleted yet");
        return Ok(Teardown::Unfinished(POD_CHECK_INTERVAL));
    };
    delete_secrets(ctx, &proof, &runtime, labels::SERVER_UID).await?;
    delete_owned(&ctx.client, &proof, owned).await?;
    Ok(Teardown::Done)
}

/// Returns the runtime namespace in which the server's objects are; none if it does not exist.
fn runtime_namespace(object: &MCPServer, owned: &[(Key, Meta)], cache: &Cache) -> Option<String> {
    let of_tenant = || {
        let tenant = cache.tenant_of_namespace(object.metadata.namespace.as_deref()?)?;
        Some(tenant.runtime_namespace()).filter(|runtime| cache.is_runtime(runtime))
    };
    owned.first().map(|(key, _)| key.namespace.clone()).or_else(of_tenant)
}
