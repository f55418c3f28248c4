//! Step one: reads. The principal's tenant, and the Secret that may be there already.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use mcp_fleet_crds::{MCPPrincipal, MCPTenant};

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::kubernetes::cache::{Key, OPERATOR_BINDING};

/// What was read.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The tenant that owns the principal's namespace.
    pub tenant: Option<Arc<MCPTenant>>,
    /// Whether the operator may write Secrets in that namespace.
    pub prepared: bool,
    /// The Secret of the credential's name.
    pub secret: Option<Secret>,
}

/// The name of a principal's credential.
pub(crate) fn secret_name(principal: &str) -> String {
    format!("{principal}-mcp-credential")
}

/// Reads it.
pub(crate) async fn dereference(object: &MCPPrincipal, ctx: &Context) -> Result<Facts, ReconcileError> {
    let namespace = object.namespace().unwrap_or_default();
    let tenant = ctx.cache.tenant_of_namespace(&namespace);
    let binding = Key { kind: "RoleBinding".into(), namespace: namespace.clone(), name: OPERATOR_BINDING.into() };
    let prepared = tenant.is_some() && ctx.cache.owned.has(&binding);
    let secret = if prepared {
        let api = crate::controllers::status::namespaced::<Secret>(&ctx.client, &namespace);
        let name = secret_name(&object.name_any());
        api.get_opt(&name).await.map_err(ReconcileError::api("read the credential's Secret"))?
    } else {
        None
    };
    Ok(Facts { tenant, prepared, secret })
}
