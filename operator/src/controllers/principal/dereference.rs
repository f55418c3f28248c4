//! Step one: reads which tenant a principal belongs to, and the Secret of its credential.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPPrincipal;

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::identity::{ObjectId, Owner};

/// What was read for one reconcile of a principal.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub id: ObjectId,
    /// The tenant that owns the principal's namespace.
    pub owner: Option<Owner>,
    /// Whether the operator may write Secrets in that namespace.
    pub prepared: bool,
    /// The Secret with the name of the credential.
    pub secret: Option<Secret>,
}

/// Returns the name of the Secret with a principal's credential.
pub(crate) fn secret_name(principal: &str) -> String {
    format!("{principal}-mcp-credential")
}

/// Reads the inputs of a principal's reconcile.
pub(crate) async fn dereference(object: &MCPPrincipal, ctx: &Context) -> Result<Inputs, ReconcileError> {
    let id = ObjectId::of(&object.metadata)?;
    let namespace = object.namespace().unwrap_or_default();
    let owner = Owner::of_namespace(&ctx.cache, &namespace)?;
    let prepared = owner.is_some() && ctx.cache.has_access(&namespace);
    let secret = if prepared {
        let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
        let found = api.get_opt(&secret_name(&id.name)).await;
        found.map_err(ReconcileError::api("read the credential's Secret"))?
    } else {
        None
    };
    Ok(Inputs { id, owner, prepared, secret })
}
