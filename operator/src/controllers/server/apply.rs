//! Step four: the server's objects as they should be, its certificate first.

use jiff::Timestamp;
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::condition::{ConditionType, is_true};
use serde_json::Value;

use super::desired::certificate;
use super::validate::Server;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::manifests::tls_secret_name;
use crate::credentials::ca::{TlsSecret, ensure_tls};
use crate::kubernetes::apply::{Action, Rendered, apply, delete};
use crate::kubernetes::cache::resource_of;
use crate::kubernetes::labels;

/// Applies them. Answers the live workload.
pub(crate) async fn bring(
    ctx: &Context,
    object: &MCPServer,
    server: &Server,
    objects: &[Rendered],
) -> Result<Value, ReconcileError> {
    let name = tls_secret_name(&server.object_name());
    let tls = TlsSecret {
        namespace: &server.runtime_namespace,
        name: &name,
        labels: server.labels(),
        request: certificate(server),
    };
    ensure_tls(&ctx.client, &ctx.ca, &tls, Timestamp::now()).await?;
    let settled = object.status.as_ref().is_some_and(|status| {
        is_true(&status.conditions, ConditionType::Ready) && status.observed_generation == object.metadata.generation
    });
    let mut workload = Value::Null;
    for want in objects {
        let applied = apply(&ctx.client, want).await?;
        if settled && applied.action != Action::Nothing {
            let note = format!("{want} was deleted or changed, and is back");
            ctx.events.warning(object, "PutBack", "Apply", note).await;
        }
        workload = applied.live;
    }
    for (key, meta) in ctx.cache.owned.with_label(labels::SERVER_UID, &server.uid) {
        // Anybody can write our labels elsewhere.
        let foreign = key.namespace != server.runtime_namespace;
        let wanted = objects.iter().any(|object| object.resource.kind == key.kind && object.name == key.name);
        let Some(resource) = (!foreign && !wanted).then(|| resource_of(&key.kind)).flatten() else { continue };
        tracing::info!(kind = key.kind, namespace = key.namespace, name = key.name, "deleting an orphan");
        delete(&ctx.client, &resource, Some(&key.namespace), &key.name, Some(&meta.uid)).await?;
    }
    Ok(workload)
}
