//! The controller of `MCPTenant`: two namespaces, the restrictions in them, and the gateway between agents and servers.

mod apply;
mod dereference;
mod desired;
mod endpoint;
mod pull;
mod quota;
mod status;
mod teardown;
#[cfg(test)]
pub(crate) mod tests;
mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use mcp_fleet_core::labels;
use mcp_fleet_core::retry::jittered;
use mcp_fleet_core::shared_state::StateChange;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_crds::MCPTenant;

use super::action::Action;
use super::error::ReconcileError;
use super::finalizer::with_finalizer;
use super::manifests::settings::Settings;
use super::outcome::Outcome;
use super::{Controller, requeue_after, resync};
use crate::context::Context;
use crate::kubernetes::cache::{Cache, Change, Readable, references};

use apply::{Applied, apply};
use dereference::dereference;
use desired::desired;
use teardown::tear_down;
use validate::validate;

/// Returns the name of the Deployment of a gateway.
pub(crate) const fn gateway_deployment() -> &'static str {
    desired::DEPLOYMENT
}

/// The controller of `MCPTenant`.
#[derive(Debug)]
pub(crate) struct Tenants;

impl Controller for Tenants {
    type Kind = MCPTenant;
    const NAME: &'static str = "tenant";

    fn store(cache: &Cache) -> Readable<MCPTenant> {
        cache.tenants.clone()
    }

    fn affected_by_change(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPTenant>> {
        match change {
            Change::Tenant(name) => {
                let changed = cache.tenant_named(name);
                // When another tenant goes, a conflict may be over.
                let rivals = changed.map_or_else(|| cache.tenants.state(), |changed| cache.rivals(&changed));
                references(rivals.into_iter().filter(|tenant| tenant.name_any() == *name || is_in_conflict(tenant)))
            }
            Change::Namespace(name) => references(cache.claiming(name)),
            Change::Owned(found) => {
                let of_other_controller = match found.get(labels::SERVER_UID) {
                    Some(server) => cache.server_by_uid(server).is_some(),
                    None => found.get(labels::PRINCIPAL_UID).is_some(),
                };
                let uid = found.get(labels::TENANT_UID).filter(|_| !of_other_controller);
                reference_to(cache, uid)
            }
            _ => vec![],
        }
    }

    fn affected_by_state(ctx: &Context, change: &StateChange) -> Vec<ObjectRef<MCPTenant>> {
        let with_uids =
            |uids: &BTreeSet<String>| uids.iter().flat_map(|uid| reference_to(&ctx.cache, Some(uid))).collect();
        match change {
            StateChange::Tenant(uid) | StateChange::Rollout(uid) => reference_to(&ctx.cache, Some(uid)),
            StateChange::Objects(objects) => objects.get(&Kind::Tenant).map(with_uids).unwrap_or_default(),
            StateChange::Spending(uids) => with_uids(uids),
            StateChange::Unenforced(_) => vec![],
        }
    }

    async fn reconcile(object: Arc<MCPTenant>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
        let (api, ctx) = (Api::<MCPTenant>::all(ctx.client.clone()), &*ctx);
        let reconcile = |object: Arc<MCPTenant>| async move {
            let inputs = dereference(&object, ctx).await?;
            let outcome = match validate(&object, &inputs) {
                Ok(tenant) => {
                    let settings = Settings::load(ctx, &object).await?;
                    let objects = desired(&tenant, &settings);
                    let outcome = Outcome::of(apply(ctx, &object, tenant, &objects, &inputs).await)?;
                    if let Outcome::Applied(applied) = &outcome {
                        let available = status::is_available(&applied.gateway);
                        ctx.rollout.report_gateway(&applied.tenant.id.uid, &settings.image, available);
                    }
                    outcome
                }
                Err(rejection) => Outcome::Rejected(rejection),
            };
            let held_back = status::write(ctx, &object, &outcome).await?;
            let next = match &outcome {
                Outcome::Applied(applied) => {
                    let next = recount_quota(ctx, applied).await?.no_later_than(applied.endpoint.check_in);
                    next.no_later_than(applied.pulls_again.map(jittered))
                }
                _ => outcome.next()?,
            };
            Ok(next.no_later_than(held_back))
        };
        with_finalizer(&api, object, reconcile, |object| async move { tear_down(&object, ctx).await }).await
    }
}

/// Has the quota of the tenant's namespace counted, if Kubernetes does not count it by itself.
async fn recount_quota(ctx: &Context, applied: &Applied) -> Result<Action, ReconcileError> {
    match quota::next(&applied.quota, Timestamp::now()) {
        quota::Next::Nothing => Ok(resync()),
        quota::Next::Wait(pause) => Ok(requeue_after(pause)),
        quota::Next::Recreate => {
            apply::delete_quota(ctx, &applied.tenant, &applied.quota).await?;
            // The next reconcile creates it again.
            Ok(Action::requeue(std::time::Duration::ZERO))
        }
    }
}

fn reference_to(cache: &Cache, uid: Option<&str>) -> Vec<ObjectRef<MCPTenant>> {
    references(uid.and_then(|uid| cache.tenant_by_uid(uid)))
}

fn is_in_conflict(tenant: &MCPTenant) -> bool {
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.reason == "Conflicted")
}
