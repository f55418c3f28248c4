//! The controller of `MCPBudget`. A budget is compiled into the policy, so nothing is applied for it: only its status is
//! written. The ledger is authoritative; [`summary`] sums it up for status every few seconds.

mod state;
mod status;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_core::shared_state::{BudgetState, StateChange};
use mcp_fleet_crds::MCPBudget;
use mcp_fleet_crds::condition::ConditionReason;

use super::action::Action;
use super::enforcement::Enforcement;
use super::error::ReconcileError;
use super::identity::{ObjectId, Owner};
use super::outcome::{Outcome, Rejection, Until};
use super::status::Progress;
use super::{Controller, affected_by_policy};
use crate::context::Context;
use crate::kubernetes::cache::{Cache, Change, Readable, in_namespace, references};

pub(crate) use summary::{budget_state, run};

/// The controller of `MCPBudget`.
#[derive(Debug)]
pub(crate) struct Budgets;

/// What is known of a budget that a tenant owns.
#[derive(Clone, Debug)]
struct Known {
    enforcement: Enforcement,
    /// How much of the budget is used; none before the ledger was summed up once.
    state: Option<BudgetState>,
}

impl Controller for Budgets {
    type Kind = MCPBudget;
    const NAME: &'static str = "budget";

    fn store(cache: &Cache) -> Readable<MCPBudget> {
        cache.budgets.clone()
    }

    fn affected_by_change(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPBudget>> {
        match change {
            Change::Budget(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.budgets, name),
            Change::Namespace(namespace) => in_namespace(&cache.budgets, namespace),
            _ => vec![],
        }
    }

    fn affected_by_state(ctx: &Context, change: &StateChange) -> Vec<ObjectRef<MCPBudget>> {
        match change {
            StateChange::Spending(uids) => references(uids.iter().filter_map(|uid| ctx.cache.budgets.with_uid(uid))),
            _ => affected_by_policy(ctx, &ctx.cache.budgets, Kind::Budget, change),
        }
    }

    async fn reconcile(object: Arc<MCPBudget>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let namespace = object.namespace().unwrap_or_default();
        let outcome = match validate(Owner::of_namespace(&ctx.cache, &namespace)?) {
            Ok(owner) => {
                let uid = ObjectId::of(&object.metadata)?.uid;
                let enforcement = Enforcement::read(&ctx.shared_state, &owner.id.uid, Kind::Budget, &uid);
                Outcome::Applied(Known { enforcement, state: budget_state(&ctx, &owner.id.uid, &uid) })
            }
            Err(rejection) => Outcome::Rejected(rejection),
        };
        let api: Api<MCPBudget> = Api::namespaced(ctx.client.clone(), &namespace);
        let progress = match &outcome {
            Outcome::Applied(known) => known.enforcement.progress(object.metadata.generation),
            _ => Progress::Settled,
        };
        let next = status::status(&object, &outcome, jiff::Timestamp::now());
        let held_back = super::status::write(&ctx, &api, &object, next, progress).await?;
        Ok(outcome.next()?.no_later_than(held_back))
    }
}

/// Checks whether a tenant owns the budget's namespace.
fn validate(owner: Option<Owner>) -> Result<Owner, Rejection> {
    owner.ok_or_else(|| Rejection {
        reason: ConditionReason::NamespaceUnclaimed,
        message: "no MCPTenant claims this namespace: the budget limits nothing; ask the platform team".into(),
        until: Until::Changed,
    })
}
