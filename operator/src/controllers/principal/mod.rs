//! `MCPPrincipal`: a credential that rotates by itself, and is revoked for good.

mod apply;
mod dereference;
mod metric;
mod plan;
mod status;
mod validate;

pub(crate) use metric::CredentialExpiry;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use mcp_fleet_crds::MCPPrincipal;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::error::ReconcileError;
use crate::credentials::revocation;
use crate::kubernetes::cache::{Cache, Change, in_namespace, only, with_uid};
use crate::kubernetes::labels;
use crate::retry::jittered;
use crate::shared_state::StateChange;
use crate::shared_state::verdict::Kind;
use apply::{Issued, issue, mend};
use dereference::Facts;
use plan::{Cause, Plan, plan};
use status::Judged;
use validate::Principal;

/// How soon to look again at a principal that waits for its tenant.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Reconciles principals.
#[derive(Debug)]
pub(crate) struct Principals;

impl Controller for Principals {
    type Kind = MCPPrincipal;
    const NAME: &'static str = "principal";

    fn store(cache: &Cache) -> Store<MCPPrincipal> {
        cache.principals.clone()
    }

    fn concerned(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPPrincipal>> {
        match change {
            Change::Principal(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.principals, name),
            Change::Namespace(name) => in_namespace(&cache.principals, name),
            Change::Owned(found) => match found.get(labels::PRINCIPAL_UID) {
                Some(uid) => only(with_uid(&cache.principals, uid)),
                // The way into the namespace: what credentials wait for.
                None if found.get(labels::COMPONENT).is_some_and(|component| component == "access") => {
                    let tenant = found.get(labels::TENANT_UID);
                    tenant.map(|uid| cache.of_tenant_with_uid(&cache.principals, uid)).unwrap_or_default()
                }
                None => vec![],
            },
            _ => vec![],
        }
    }

    fn told(cache: &Cache, change: &StateChange) -> Vec<ObjectRef<MCPPrincipal>> {
        match change {
            StateChange::Tenant(uid) => cache.of_tenant_with_uid(&cache.principals, uid),
            StateChange::Verdict(Kind::Principal, uid) => only(with_uid(&cache.principals, uid)),
            StateChange::Verdict(..) => vec![],
        }
    }

    async fn reconcile(object: Arc<MCPPrincipal>, ctx: Arc<Context>) -> Result<Option<Duration>, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        // Before all else: a revocation must not wait for a Secret.
        let revoked_until = revoke(&object, &ctx).await?;
        let facts = dereference::dereference(&object, &ctx).await?;
        let principal = match validate::validate(&object, &facts, &ctx.config)? {
            Ok(principal) => principal,
            Err(refusal) => {
                status::write(&ctx, &object, &Judged::Refused(&refusal)).await?;
                return Ok(refusal.waiting.then(|| jittered(LOOK_AGAIN)));
            }
        };
        match renew(&object, principal, &facts, revoked_until, &ctx).await {
            Ok((principal, issued, again)) => {
                let state = ctx.shared_state.tenant_state(&principal.tenant_uid);
                let verdict = ctx.shared_state.verdict(Kind::Principal, &principal.uid);
                let judged = Judged::Applied {
                    principal: &principal,
                    issued,
                    revoked_until,
                    state: &state,
                    verdict: verdict.as_ref(),
                };
                status::write(&ctx, &object, &judged).await?;
                Ok(Some(again.min(revocation_due(&object).unwrap_or(again))))
            }
            Err(error) if error.is_conflict() => Err(error),
            Err(error) => {
                let judged = Judged::Failed { message: error.chain(), stuck: error.is_permanent() };
                status::write(&ctx, &object, &judged).await?;
                Err(error)
            }
        }
    }
}

/// Stores the requested revocation and has it compiled. Returns the time up to which tokens are revoked.
pub(super) async fn revoke(object: &MCPPrincipal, ctx: &Context) -> Result<Option<i64>, ReconcileError> {
    let uid = object.metadata.uid.as_deref().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    let asked = object.spec.revoke_issued_before.as_ref().map(|time| time.0);
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(until) = revocation::requested(asked, Timestamp::now())
        && let Some(tenant) = ctx.cache.tenant_of_namespace(namespace)
        && let Some(tenant_uid) = tenant.metadata.uid.as_deref()
    {
        let tenant_name = tenant.metadata.name.as_deref().unwrap_or_default();
        let alive = |uid: &str| ctx.cache.has_principal(uid);
        if ctx.revocations.raise((tenant_name, tenant_uid), uid, until, alive).await? {
            ctx.shared_state.request_compilation(tenant_uid);
            let note = format!("tokens issued until {} are refused for good", asked.unwrap_or_default());
            ctx.events.normal(object, "Revoked", "Revoke", note).await;
        }
    }
    Ok(ctx.revocations.get(uid))
}

/// When a revocation that lies in the future falls due; a year ahead is as good as never.
fn revocation_due(object: &MCPPrincipal) -> Option<Duration> {
    let asked = object.spec.revoke_issued_before.as_ref()?.0;
    let left = asked.as_second().saturating_sub(Timestamp::now().as_second());
    u64::try_from(left).ok().filter(|left| *left > 0).map(|left| Duration::from_secs(left + 1))
}

/// Brings the credential up to date. Answers the token that is in force, and when to look again.
async fn renew(
    object: &MCPPrincipal,
    mut principal: Principal,
    facts: &Facts,
    revoked_until: Option<i64>,
    ctx: &Context,
) -> Result<(Principal, Option<Issued>, Duration), ReconcileError> {
    let keys = ctx.keys.get_or_create(&principal.tenant, &principal.tenant_uid).await?;
    principal.identity.kid.clone_from(&keys.kid);
    let known = object.status.as_ref().and_then(|status| status.credential.as_ref()).map_or(0, |it| it.serial);
    let now = Timestamp::now().as_second();
    let current = facts.secret.as_ref().and_then(|secret| validate::token(secret, &keys));
    let current = current.as_ref();
    match plan(current, &principal.identity, principal.lifetime, known, revoked_until, now) {
        Plan::Keep { rotate_in } => {
            let issued = current.map(|current| Issued::of(&current.claims, &principal));
            if let (Some(issued), Some(secret)) = (issued, &facts.secret) {
                mend(ctx, object, &principal, secret, issued).await?;
            }
            Ok((principal, issued, rotate_in + spread(rotate_in)))
        }
        Plan::Wait { wait } => Ok((principal, None, wait)),
        Plan::Issue { serial, cause } => {
            let issued = issue(ctx, object, &principal, &keys, facts.secret.as_ref(), serial, now).await?;
            let reason = match cause {
                Cause::Rotation => "CredentialRotated",
                Cause::Missing | Cause::Revoked | Cause::Outdated => "CredentialIssued",
            };
            ctx.events.normal(object, reason, "Issue", format!("token {serial} is in the Secret")).await;
            let rotate_in = Duration::from_secs(u64::try_from(issued.rotates_at - now).unwrap_or(1));
            Ok((principal, Some(issued), rotate_in + spread(rotate_in)))
        }
    }
}

/// Principals that were made together are not rotated together: up to a hundredth later.
fn spread(rotate_in: Duration) -> Duration {
    let jitter = jittered(rotate_in).abs_diff(rotate_in);
    (jitter / 25).min(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    //! Examples that the tests of the steps share.

    use clap::Parser as _;

    use super::*;
    use crate::config::Config;

    pub(super) fn principal() -> MCPPrincipal {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPPrincipal",
            "metadata": {"name": "coder", "namespace": "acme", "uid": "p-1", "generation": 1},
            "spec": {"scopeRefs": [{"name": "files-read"}]},
        }))
        .unwrap()
    }

    pub(super) fn facts() -> Facts {
        Facts { tenant: Some(Arc::new(crate::controllers::tenant::tests::tenant())), prepared: true, secret: None }
    }

    pub(super) fn config() -> Config {
        Config::parse_from(["operator", "--mcp-pod-image=mcp-pod:dev"])
    }

    pub(super) fn checked() -> Principal {
        validate::validate(&principal(), &facts(), &config()).unwrap().unwrap()
    }

    #[test]
    fn rotation_is_spread_by_a_little() {
        for _ in 0..50 {
            assert!(spread(Duration::from_secs(180)) <= Duration::from_secs(2));
        }
    }
}
