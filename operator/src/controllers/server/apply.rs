//! Step four: applies what runs for a server.

use jiff::Timestamp;
use mcp_fleet_core::labels;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_crds::MCPServer;
use serde_json::Value;

use super::desired::Objects;
use super::growth::Growth;
use super::validate::Server;
use super::{growth, workspace};
use crate::context::Context;
use crate::controllers::apply::Applier;
use crate::controllers::enforcement::Enforcement;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::tls_secret_name;
use crate::credentials::ca::{TlsSecret, ensure_tls};

/// What is known of a server after the apply step.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub server: Server,
    /// The live Deployment or `StatefulSet`.
    pub workload: Value,
    pub enforcement: Enforcement,
    /// How far the volume of the workspace has grown; none if its size was not changed.
    pub growth: Option<Growth>,
}

/// Applies the objects of a server, its certificate first, and deletes what it no longer declares.
pub(crate) async fn apply(
    ctx: &Context,
    object: &MCPServer,
    server: Server,
    objects: &Objects,
) -> Result<Applied, ReconcileError> {
    let tls = TlsSecret {
        namespace: &server.runtime_namespace,
        name: &tls_secret_name(&server.object_name()),
        labels: server.labels(),
        request: objects.certificate.clone(),
    };
    ensure_tls(&ctx.client, &ctx.cache.secrets, &ctx.ca, &tls, Timestamp::now()).await?;
    if let Some(claim) = server.workspace.as_ref().and_then(|volume| volume.claim.reattached.as_ref()) {
        workspace::reattach(ctx, &server.runtime_namespace, &server.id, claim).await?;
        let note = format!("the workspace is the retained volume claim {}", claim.name.as_deref().unwrap_or_default());
        ctx.events.normal(object, "WorkspaceReattached", "Apply", note).await;
    }
    let mut applier = Applier::new(ctx, object);
    applier.apply_all([&objects.policy, &objects.service]).await?;
    let workload = applier.apply(&objects.workload).await?;
    let growth = Box::pin(growth::grow(ctx, &server)).await;
    let mut owned = ctx.cache.owned.with_label(labels::SERVER_UID, &server.id.uid);
    // In other namespaces anybody can set our labels.
    owned.retain(|(key, _)| key.namespace == server.runtime_namespace);
    let enforcement = Enforcement::read(&ctx.shared_state, &server.tenant.uid, Kind::Server, &server.id.uid);
    // Until a policy has addresses of pods, gateways use the address of a Service that an earlier version made.
    if !enforcement.has_address() {
        owned.retain(|(key, _)| key.kind != "Service");
    }
    applier.prune(owned).await?;
    Ok(Applied { server, workload, enforcement, growth })
}
