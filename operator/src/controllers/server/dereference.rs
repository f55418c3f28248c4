//! Step one: reads which tenant a server belongs to, whether its runtime namespace is prepared, what exists for its
//! workspace, and what its program is configured with.

use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_core::labels;
use mcp_fleet_core::server_config::{Found, References};
use mcp_fleet_crds::{MCPServer, MCPTenant};

use super::config;
use super::fit::missing_resource;
use super::{pull, workspace};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::identity::{ObjectId, Owner};
use crate::controllers::manifests::network::DEFAULT_DENY;
use crate::controllers::outcome::Rejection;
use crate::kubernetes::cache::{Cache, Key};

/// What was read for one reconcile of a server.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub id: ObjectId,
    /// The tenant that owns the server's namespace.
    pub owner: Option<Owner>,
    /// Whether the runtime namespace exists with its restrictions, and the operator may write in it.
    pub prepared: bool,
    /// What exists for its workspace; empty if it has none.
    pub workspace: workspace::Found,
    /// What its program is configured with, or why it cannot be.
    pub config: Result<Arc<Found>, Rejection>,
    /// The resource of the tenant's quota in which its pods do not fit, if the tenant stops such servers.
    pub missing_resource: Option<String>,
}

/// Reads the inputs of a server's reconcile.
pub(crate) async fn dereference(object: &MCPServer, ctx: &Context) -> Result<Inputs, ReconcileError> {
    let owner = Owner::of_namespace(&ctx.cache, &object.namespace().unwrap_or_default())?;
    let prepared = owner.as_ref().is_some_and(|owner| is_prepared(&ctx.cache, &owner.tenant));
    let id = ObjectId::of(&object.metadata)?;
    let is_mounted = object.spec.workspace.is_some() && object.metadata.deletion_timestamp.is_none();
    let workspace = match &owner {
        Some(owner) if prepared && is_mounted => workspace::read(ctx, &owner.tenant.runtime_namespace(), &id).await?,
        _ => workspace::Found::default(),
    };
    let missing_resource = owner.as_ref().and_then(|owner| {
        let namespace = &owner.tenant.spec.namespace.name;
        let servers = || ctx.cache.servers.in_namespace(namespace);
        missing_resource(&owner.tenant, servers, &id.uid)
    });
    let container = object.spec.source.container().filter(|_| prepared && object.metadata.deletion_timestamp.is_none());
    let config = match (&owner, container) {
        (Some(owner), Some(container)) => {
            let namespace = &owner.tenant.spec.namespace.name;
            let references = pull::with_secrets(References::of(container), object, &owner.tenant);
            Box::pin(config::read(ctx, namespace, &id.name, &references)).await?.map(Arc::new)
        }
        _ => Ok(Arc::default()),
    };
    Ok(Inputs { id, owner, prepared, workspace, config, missing_resource })
}

fn is_prepared(cache: &Cache, tenant: &MCPTenant) -> bool {
    let runtime = tenant.runtime_namespace();
    let namespace_is_ours = cache.namespaces.get("", &runtime).is_some_and(|namespace| {
        namespace.metadata.deletion_timestamp.is_none()
            && namespace.labels().get(labels::TENANT_UID) == tenant.metadata.uid.as_ref()
    });
    let deny = Key { kind: "NetworkPolicy".into(), namespace: runtime.clone(), name: DEFAULT_DENY.into() };
    namespace_is_ours && cache.has_access(&runtime) && cache.owned.has(&deny)
}
