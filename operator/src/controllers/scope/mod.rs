//! The controller of `MCPScope`. A scope is compiled into the policy, so nothing is applied for it: only its status is
//! written.

mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use mcp_fleet_core::shared_state::StateChange;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_crds::MCPScope;
use mcp_fleet_crds::condition::ConditionReason;

use super::action::Action;
use super::enforcement::Enforcement;
use super::error::ReconcileError;
use super::identity::{ObjectId, Owner};
use super::outcome::{Outcome, Rejection, Until};
use super::status::Progress;
use super::{Controller, affected_by_policy};
use crate::context::Context;
use crate::kubernetes::cache::{Cache, Change, Readable, in_namespace};

/// The controller of `MCPScope`.
#[derive(Debug)]
pub(crate) struct Scopes;

impl Controller for Scopes {
    type Kind = MCPScope;
    const NAME: &'static str = "scope";

    fn store(cache: &Cache) -> Readable<MCPScope> {
        cache.scopes.clone()
    }

    fn affected_by_change(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPScope>> {
        match change {
            Change::Scope(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.scopes, name),
            Change::Namespace(namespace) => in_namespace(&cache.scopes, namespace),
            _ => vec![],
        }
    }

    fn affected_by_state(ctx: &Context, change: &StateChange) -> Vec<ObjectRef<MCPScope>> {
        affected_by_policy(ctx, &ctx.cache.scopes, Kind::Scope, change)
    }

    async fn reconcile(object: Arc<MCPScope>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let namespace = object.namespace().unwrap_or_default();
        let outcome = match validate(Owner::of_namespace(&ctx.cache, &namespace)?) {
            Ok(owner) => {
                let uid = ObjectId::of(&object.metadata)?.uid;
                Outcome::Applied(Enforcement::read(&ctx.shared_state, &owner.id.uid, Kind::Scope, &uid))
            }
            Err(rejection) => Outcome::Rejected(rejection),
        };
        let api: Api<MCPScope> = Api::namespaced(ctx.client.clone(), &namespace);
        let progress = match &outcome {
            Outcome::Applied(enforcement) => enforcement.progress(object.metadata.generation),
            _ => Progress::Settled,
        };
        let next = status::status(&object, &outcome, jiff::Timestamp::now());
        let held_back = super::status::write(&ctx, &api, &object, next, progress).await?;
        Ok(outcome.next()?.no_later_than(held_back))
    }
}

/// Checks whether a tenant owns the scope's namespace.
fn validate(owner: Option<Owner>) -> Result<Owner, Rejection> {
    owner.ok_or_else(|| Rejection {
        reason: ConditionReason::NamespaceUnclaimed,
        message: "no MCPTenant claims this namespace: the scope grants nothing; ask the platform team".into(),
        until: Until::Changed,
    })
}
