//! The teardown of a server: its pods end first, then what they were made with goes, and their network policy last.

use k8s_openapi::api::core::v1::Secret;
use kube::api::ApiResource;
use mcp_fleet_crds::MCPServer;

use super::status;
use super::validate::object_name;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::finalizer::Teardown;
use crate::controllers::identity::ObjectId;
use crate::controllers::manifests::tls_secret_name;
use crate::controllers::outcome::Outcome;
use crate::controllers::teardown::{POD_CHECK_INTERVAL, has_pods, scale_to_zero};
use crate::kubernetes::apply::delete;
use crate::kubernetes::cache::resource_of;
use crate::kubernetes::labels;

/// Continues the teardown of a server.
pub(super) async fn tear_down(object: &MCPServer, ctx: &Context) -> Result<Teardown, ReconcileError> {
    let ObjectId { name, uid } = ObjectId::of(&object.metadata)?;
    // What is not in the cache is gone, or goes with its namespace. In other namespaces anybody can set our labels.
    let mut owned = ctx.cache.owned.with_label(labels::SERVER_UID, &uid);
    owned.retain(|(key, _)| ctx.cache.is_runtime(&key.namespace));
    scale_to_zero(ctx, &owned).await?;
    if let Some((key, _)) = owned.first() {
        if has_pods(ctx, &key.namespace, &format!("{}={uid}", labels::SERVER_UID)).await? {
            status::write(ctx, object, &Outcome::Deleting("waiting for the pods to end")).await?;
            return Ok(Teardown::Unfinished(POD_CHECK_INTERVAL));
        }
        let secrets = ApiResource::erase::<Secret>(&());
        delete(&ctx.client, &secrets, Some(&key.namespace), &tls_secret_name(&object_name(&name)), None).await?;
    }
    owned.sort_by_key(|(key, _)| key.kind == "NetworkPolicy");
    for (key, meta) in owned {
        if let Some(resource) = resource_of(&key.kind) {
            delete(&ctx.client, &resource, Some(&key.namespace), &key.name, Some(&meta.uid)).await?;
        }
    }
    Ok(Teardown::Done)
}
