//! Step one: reads which tenant a principal belongs to, and the Secret of its credential.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use mcp_fleet_core::credentials::tokens::plan::Token;
use mcp_fleet_core::public_name::Names;
use mcp_fleet_crds::MCPPrincipal;

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::identity::{ObjectId, Owner};
use crate::kubernetes::cache::Knowledge;

/// What was read for one reconcile of a principal.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub id: ObjectId,
    /// The tenant that owns the principal's namespace.
    pub owner: Option<Owner>,
    /// Whether the operator may write Secrets in that namespace.
    pub prepared: bool,
    /// The Secret with the name of the credential. Not read if its token is known.
    pub secret: Option<Secret>,
    /// The token in the Secret, which nobody changed since it was read or written.
    pub known: Option<Token>,
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
    let (mut secret, mut known) = (None, None);
    if let Some(owner) = owner.as_ref().filter(|_| prepared) {
        match ctx.cache.secrets.knowledge(&namespace, &secret_name(&id.name), digest(&id, owner, ctx)) {
            Knowledge::AsWanted(token) if token.is_some() => known = token,
            // It is created, which fails if someone else made one.
            Knowledge::Missing => {}
            Knowledge::AsWanted(_) | Knowledge::Unknown => secret = read(ctx, &namespace, &id.name).await?,
        }
    }
    Ok(Inputs { id, owner, prepared, secret, known })
}

/// Returns a digest of everything that decides what a principal's Secret contains, except the token.
pub(super) fn digest(id: &ObjectId, owner: &Owner, ctx: &Context) -> u128 {
    let mut hasher = DefaultHasher::new();
    let (tenant, credentials) = (&owner.tenant, &owner.tenant.spec.credentials);
    let keys = ctx.keys.cached(&owner.id.uid).map(|keys| keys.kid.clone());
    (&id.name, &id.uid, &owner.id.name, &owner.id.uid, tenant.runtime_namespace()).hash(&mut hasher);
    Names::of(tenant).in_use.hash(&mut hasher);
    (credentials.lifetime.get(), credentials.overlap.get(), keys, ctx.ca.certificate_pem()).hash(&mut hasher);
    hasher.finish().into()
}

/// Reads the Secret of a principal's credential.
pub(super) async fn read(ctx: &Context, namespace: &str, principal: &str) -> Result<Option<Secret>, ReconcileError> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let found = api.get_opt(&secret_name(principal)).await;
    found.map_err(ReconcileError::api("read the credential's Secret"))
}
