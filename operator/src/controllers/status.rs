//! Writing status: only when it says something else than before, and only on the version that was judged.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::object::HasStatus;
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_crds::condition::{self, ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPBudgetStatus, MCPPrincipalStatus, MCPScopeStatus, MCPServerStatus, MCPTenantStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::kubernetes::events::Events;
use crate::kubernetes::labels::FINALIZER;
use crate::shared_state::SharedState;
use crate::shared_state::verdict::{TenantState, Verdict};

/// The three conditions that every tool understands, from the one judgement they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Summary {
    /// In force.
    Ready(Reason, String),
    /// Not yet, and someone is at it.
    Working(Reason, String),
    /// Not, until someone changes something.
    Stuck(Reason, String),
}

impl Summary {
    /// Ready, Reconciling and Stalled.
    pub(super) fn conditions(&self) -> [NewCondition; 3] {
        use ConditionType::{Ready, Reconciling, Stalled};
        let done = |kind| NewCondition::no(kind, Reason::Reconciled, "");
        match self {
            Self::Ready(reason, message) => {
                [NewCondition::yes(Ready, *reason, message), done(Reconciling), done(Stalled)]
            }
            Self::Working(reason, message) => [
                NewCondition::no(Ready, *reason, message),
                NewCondition::yes(Reconciling, *reason, message),
                done(Stalled),
            ],
            Self::Stuck(reason, message) => [
                NewCondition::no(Ready, *reason, message),
                NewCondition::no(Reconciling, *reason, ""),
                NewCondition::yes(Stalled, *reason, message),
            ],
        }
    }
}

/// Puts conditions together: those of the summary first, then the others.
pub(super) fn conditions(
    before: &[Condition],
    summary: &Summary,
    others: Vec<NewCondition>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let all: Vec<NewCondition> = summary.conditions().into_iter().chain(others).collect();
    condition::merge(before, &all, generation, &Time(now))
}

/// Whether every gateway enforces the newest policy, and that policy is made of the object as it is now.
pub(super) fn policy_current(state: &TenantState, verdict: Option<&Verdict>, generation: Option<i64>) -> NewCondition {
    let kind = ConditionType::PolicyCurrent;
    if let Some((reason, message)) = &state.error {
        return NewCondition::no(kind, *reason, message);
    }
    let compiled = verdict.is_some_and(|verdict| verdict.object_generation >= generation.unwrap_or(0));
    let current = state.current();
    if !compiled || state.generation == 0 {
        return NewCondition::no(kind, Reason::AwaitingAcknowledgement, "the policy is being compiled");
    }
    if current == 0 || current < state.gateways.len() {
        let message = format!("{current} of {} acknowledged policy {}", state.gateways.len().max(1), state.generation);
        return NewCondition::no(kind, Reason::AwaitingAcknowledgement, message);
    }
    NewCondition::yes(kind, Reason::Enforced, format!("all gateways enforce policy {}", state.generation))
}

/// The summary of an object that has nothing of its own to make: it is in force once a gateway enforces the policy that
/// was compiled from it.
pub(super) fn in_force(
    state: &TenantState,
    verdict: Option<&Verdict>,
    generation: Option<i64>,
    message: &str,
) -> Summary {
    match verdict {
        Some(verdict) if !verdict.ok => Summary::Stuck(verdict.reason, verdict.message.clone()),
        Some(verdict) if verdict.object_generation >= generation.unwrap_or(0) && state.current() > 0 => {
            Summary::Ready(Reason::Reconciled, message.into())
        }
        Some(_) => Summary::Working(
            Reason::AwaitingAcknowledgement,
            "no gateway has acknowledged the newest policy yet".into(),
        ),
        None => Summary::Working(Reason::Progressing, "the policy is being compiled".into()),
    }
}

/// A status that carries conditions.
pub(super) trait Conditioned: PartialEq {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
}

macro_rules! conditioned {
    ($($status:ty),*) => {$(
        impl Conditioned for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
        }
    )*};
}

conditioned!(MCPBudgetStatus, MCPPrincipalStatus, MCPScopeStatus, MCPServerStatus, MCPTenantStatus);

/// Writes the status if it says something else than before, and tells in an Event what a person wants to know of it.
pub(super) async fn publish<K>(ctx: &Context, api: &Api<K>, object: &K, next: K::Status) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = ()> + HasStatus + Clone + Serialize + DeserializeOwned + Debug,
    K::Status: Conditioned,
{
    let before = object.status().map(Conditioned::conditions).unwrap_or_default();
    let after = next.conditions().to_vec();
    if !is_premature(&ctx.shared_state, before, &after) && write(api, object, next).await? {
        announce(&ctx.events, object, before, &after).await;
    }
    Ok(())
}

/// Writes the status if it is another than before. Answers whether it was written.
async fn write<K>(api: &Api<K>, object: &K, status: K::Status) -> Result<bool, ReconcileError>
where
    K: Resource<DynamicType = ()> + HasStatus + Clone + Serialize + DeserializeOwned + Debug,
    K::Status: PartialEq,
{
    if object.status() == Some(&status) {
        return Ok(false);
    }
    let mut next = object.clone();
    next.meta_mut().managed_fields = None;
    *next.status_mut() = Some(status);
    api.replace_status(&object.name_any(), &PostParams::default(), &next)
        .await
        .map_err(ReconcileError::api("write a status"))?;
    Ok(true)
}

/// Whether a new leader would only say that it does not know yet: what was said before still holds, until gateways
/// had the time to find it.
fn is_premature(state: &SharedState, before: &[Condition], after: &[Condition]) -> bool {
    let unknown = [Reason::AwaitingAcknowledgement, Reason::Progressing];
    state.is_warming_up()
        && condition::is_true(before, ConditionType::Ready)
        && condition::find(after, ConditionType::Ready)
            .is_some_and(|ready| unknown.iter().any(|reason| reason.as_str() == ready.reason))
}

/// Tells in an Event when an object becomes ready, or stops being so for a new reason.
async fn announce<K: Resource<DynamicType = ()>>(
    events: &Events,
    object: &K,
    before: &[Condition],
    after: &[Condition],
) {
    let (was, is) = (condition::find(before, ConditionType::Ready), condition::find(after, ConditionType::Ready));
    let Some(is) = is else { return };
    if was.is_some_and(|was| was.status == is.status && was.reason == is.reason) {
        return;
    }
    let stalled = condition::is_true(after, ConditionType::Stalled);
    if is.status == "True" {
        events.normal(object, "Ready", "Reconcile", is.message.clone()).await;
    } else if stalled || is.reason == Reason::Failed.as_str() {
        events.warning(object, &is.reason, "Reconcile", is.message.clone()).await;
    } else if was.is_some_and(|was| was.status == "True") {
        events.normal(object, &is.reason, "Reconcile", is.message.clone()).await;
    }
}

/// Adds our finalizer to the object if it is not there. Answers whether it had to be.
pub(super) async fn hold<K>(api: &Api<K>, object: &K) -> Result<bool, ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if object.finalizers().iter().any(|found| found == FINALIZER) {
        return Ok(false);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    patch_finalizers(api, object, &finalizers).await?;
    Ok(true)
}

/// Takes our finalizer off: the object may go.
pub(super) async fn release<K>(api: &Api<K>, object: &K) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let finalizers: Vec<_> = object.finalizers().iter().filter(|found| *found != FINALIZER).cloned().collect();
    patch_finalizers(api, object, &finalizers).await
}

async fn patch_finalizers<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    // With the version, so that no finalizer of another is lost.
    let patch = serde_json::json!({"metadata": {
        "finalizers": finalizers, "resourceVersion": object.meta().resource_version,
    }});
    match api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // It is gone already.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ReconcileError::Api { verb: "change the finalizers", source }),
    }
}

/// The API of a kind in a namespace.
pub(super) fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}
