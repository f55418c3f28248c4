//! The controller of `MCPPrincipal`: a credential that is rotated automatically and can be revoked for good.

mod apply;
mod dereference;
mod metric;
mod status;
#[cfg(test)]
pub(super) mod tests;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use mcp_fleet_core::credentials::revocation;
use mcp_fleet_core::credentials::tokens::plan::{Current, Plan, plan};
use mcp_fleet_core::labels;
use mcp_fleet_core::shared_state::StateChange;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_crds::MCPPrincipal;

use super::action::Action;
use super::error::ReconcileError;
use super::identity::{ObjectId, Owner};
use super::outcome::Outcome;
use super::{Controller, affected_by_policy, requeue_after};
use crate::context::Context;
use crate::credentials::revocation::Revoked;
use crate::kubernetes::cache::{Cache, Change, Readable, in_namespace, references};

use apply::{Applied, Credential, apply};
use dereference::{Inputs, dereference, digest, read};
use validate::{Principal, validate};

pub(crate) use metric::CredentialExpiry;

/// The controller of `MCPPrincipal`.
#[derive(Debug)]
pub(crate) struct Principals;

impl Controller for Principals {
    type Kind = MCPPrincipal;
    const NAME: &'static str = "principal";

    fn store(cache: &Cache) -> Readable<MCPPrincipal> {
        cache.principals.clone()
    }

    fn affected_by_change(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPPrincipal>> {
        match change {
            Change::Principal(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.principals, name),
            Change::Namespace(name) => in_namespace(&cache.principals, name),
            Change::Owned(found) => match found.get(labels::PRINCIPAL_UID) {
                Some(uid) => references(cache.principals.with_uid(uid)),
                // Principals wait for access to their namespace.
                None if found.get(labels::COMPONENT) == Some("access") => {
                    let tenant = found.get(labels::TENANT_UID);
                    tenant.map(|uid| cache.of_tenant_with_uid(&cache.principals, uid)).unwrap_or_default()
                }
                None => vec![],
            },
            _ => vec![],
        }
    }

    fn affected_by_state(ctx: &Context, change: &StateChange) -> Vec<ObjectRef<MCPPrincipal>> {
        affected_by_policy(ctx, &ctx.cache.principals, Kind::Principal, change)
    }

    async fn reconcile(object: Arc<MCPPrincipal>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        // Before anything else: a revocation must not wait for a Secret.
        let revoked_until = revoke(&object, &ctx).await?;
        let inputs = dereference(&object, &ctx).await?;
        let outcome = match validate(&object, &inputs, &ctx.config) {
            Ok(principal) => Outcome::of(renew(&object, principal, &inputs, revoked_until, &ctx).await)?,
            Err(rejection) => Outcome::Rejected(rejection),
        };
        let held_back = status::write(&ctx, &object, &outcome).await?;
        let next = match &outcome {
            Outcome::Applied(applied) => {
                requeue_after(applied.check_in.min(revocation_due(&object).unwrap_or(applied.check_in)))
            }
            _ => outcome.next()?,
        };
        Ok(next.no_later_than(held_back))
    }
}

/// Plans what is to be done about the credential, and does it.
async fn renew(
    object: &MCPPrincipal,
    principal: Principal,
    inputs: &Inputs,
    revoked_until: Option<i64>,
    ctx: &Context,
) -> Result<Applied, ReconcileError> {
    let keys = ctx.keys.get_or_create(&principal.tenant.name, &principal.tenant.uid).await?;
    let known_serial = object.status.as_ref().and_then(|status| status.credential.as_ref()).map_or(0, |it| it.serial);
    let identity = principal.identity(&keys.kid);
    let now = Timestamp::now().as_second();
    let known = inputs.known.map(|token| Current::of(token, &identity));
    let plan =
        |current: Option<&Current>| plan(current, &identity, principal.lifetime, known_serial, revoked_until, now);
    let is_kept = |current: &Current| matches!(plan(Some(current)), Plan::Keep { .. });
    let (secret, current) = if let Some(known) = known.filter(is_kept) {
        (None, Some(known))
    } else {
        // What is known of the Secret is not enough to replace it.
        let secret = match &inputs.known {
            Some(_) => read(ctx, &principal.namespace, &principal.id.name).await?,
            None => inputs.secret.clone(),
        };
        let current = secret.as_ref().and_then(|secret| validate::token(secret, &keys));
        (secret, current)
    };
    let plan = plan(current.as_ref());
    let digest = inputs.owner.as_ref().map(|owner| digest(&principal.id, owner, ctx));
    let credential = Credential { keys: &keys, secret: secret.as_ref(), digest, current, revoked_until, now };
    apply(ctx, object, principal, &credential, plan).await
}

/// Stores the revocation that the spec requests, and has the policy compiled. Returns the Unix second up to which tokens
/// are refused.
pub(super) async fn revoke(object: &MCPPrincipal, ctx: &Context) -> Result<Option<i64>, ReconcileError> {
    let uid = ObjectId::of(&object.metadata)?.uid;
    let requested = object.spec.revoke_issued_before.as_ref().map(|time| time.0);
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(until) = revocation::requested(requested, Timestamp::now())
        && let Some(Owner { id: tenant, .. }) = Owner::of_namespace(&ctx.cache, namespace)?
    {
        let exists = |uid: &str| ctx.cache.has_principal(uid);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let principal = Revoked { uid: &uid, name, until };
        if ctx.revocations.raise((&tenant.name, &tenant.uid), principal, exists).await? {
            ctx.shared_state.request_compilation(&tenant.uid);
            let note = format!("tokens issued until {} are refused for good", requested.unwrap_or_default());
            ctx.events.normal(object, "Revoked", "Revoke", note).await;
        }
    }
    Ok(ctx.revocations.get(&uid))
}

/// Returns how long it takes until a revocation that lies in the future is due.
fn revocation_due(object: &MCPPrincipal) -> Option<Duration> {
    let requested = object.spec.revoke_issued_before.as_ref()?.0;
    let left = requested.as_second().saturating_sub(Timestamp::now().as_second());
    u64::try_from(left).ok().filter(|left| *left > 0).map(|left| Duration::from_secs(left + 1))
}
