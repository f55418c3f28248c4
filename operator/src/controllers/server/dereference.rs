//! Step one: reads which tenant a server belongs to, and whether its runtime namespace is prepared. All of it is in the
//! cache.

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use mcp_fleet_crds::{MCPServer, MCPTenant};

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::identity::{ObjectId, Owner};
use crate::controllers::manifests::network::DEFAULT_DENY;
use crate::kubernetes::cache::{Cache, Key};
use crate::kubernetes::labels;

/// What was read for one reconcile of a server.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub id: ObjectId,
    /// The tenant that owns the server's namespace.
    pub owner: Option<Owner>,
    /// Whether the runtime namespace exists with its restrictions, and the operator may write in it.
    pub prepared: bool,
}

/// Reads the inputs of a server's reconcile.
pub(crate) fn dereference(object: &MCPServer, ctx: &Context) -> Result<Inputs, ReconcileError> {
    let owner = Owner::of_namespace(&ctx.cache, &object.namespace().unwrap_or_default())?;
    let prepared = owner.as_ref().is_some_and(|owner| is_prepared(&ctx.cache, &owner.tenant));
    Ok(Inputs { id: ObjectId::of(&object.metadata)?, owner, prepared })
}

fn is_prepared(cache: &Cache, tenant: &MCPTenant) -> bool {
    let runtime = tenant.runtime_namespace();
    let namespace_is_ours = cache.namespaces.get(&ObjectRef::new(&runtime)).is_some_and(|namespace| {
        namespace.metadata.deletion_timestamp.is_none()
            && namespace.labels().get(labels::TENANT_UID) == tenant.metadata.uid.as_ref()
    });
    let deny = Key { kind: "NetworkPolicy".into(), namespace: runtime.clone(), name: DEFAULT_DENY.into() };
    namespace_is_ours && cache.has_access(&runtime) && cache.owned.has(&deny)
}
