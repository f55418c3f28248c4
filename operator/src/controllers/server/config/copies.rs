//! The copies in the runtime namespace, which pods refer to. All are Secrets, also those of `ConfigMap`s.

use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::server_config::Found;
use mcp_fleet_crds::MCPServer;

use super::read::turn;
use crate::context::Context;
use crate::controllers::apply::delete_undeclared;
use crate::controllers::error::ReconcileError;
use crate::controllers::secret_copy::SecretCopy;
use crate::controllers::server::validate::Server;

/// Component of a copy.
const COMPONENT: &str = "server-config";

/// Writes the copies of a server. Returns their versions in one text, which is another one after each change.
pub(crate) async fn apply(ctx: &Context, server: &Server, found: &Found) -> Result<Option<String>, ReconcileError> {
    let _turn = if found.0.is_empty() { None } else { turn().await };
    let mut versions = Vec::with_capacity(found.0.len());
    for (source, data) in &found.0 {
        let copy = SecretCopy {
            namespace: &server.runtime_namespace,
            name: &source.copy_name(&server.id.name),
            labels: labels(server),
            kind: "Opaque",
            data: data.clone(),
        };
        versions.push(copy.apply(ctx).await?.resource_version.unwrap_or_default());
    }
    Ok((!versions.is_empty()).then(|| versions.join("-")))
}

fn labels(server: &Server) -> Labels {
    let mut labels = server.labels();
    labels.insert(labels::COMPONENT.into(), COMPONENT.into());
    labels
}

/// Deletes the copies that a server does not need any more. To be called once no pod needs them either.
pub(crate) async fn prune(
    ctx: &Context,
    object: &MCPServer,
    server: &Server,
    found: &Found,
) -> Result<(), ReconcileError> {
    let needed: Vec<_> = found.0.keys().map(|source| source.copy_name(&server.id.name)).collect();
    let mut copies = ctx.cache.secrets.with_label(&server.runtime_namespace, labels::SERVER_UID, &server.id.uid);
    copies.retain(|(key, meta)| meta.labels.get(labels::COMPONENT) == Some(COMPONENT) && !needed.contains(&key.name));
    delete_undeclared(ctx, object, copies).await
}
