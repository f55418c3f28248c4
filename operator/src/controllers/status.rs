//! The status step, the same for all kinds: a status is written only if it differs from the one before, and only over
//! the version of the object that was reconciled.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::PostParams;
use kube::core::object::HasStatus;
use kube::{Api, Resource, ResourceExt};
use mcp_fleet_core::shared_state::SharedState;
use mcp_fleet_crds::condition::{self, ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPBudgetStatus, MCPPrincipalStatus, MCPScopeStatus, MCPServerStatus, MCPTenantStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ReconcileError;
use super::spending;
use crate::context::Context;
use crate::kubernetes::events::Events;

/// The state of an object, from which the three conditions follow that every tool understands (kstatus).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Summary {
    /// The object is in force as it is written.
    Ready(Reason, String),
    /// The object is not in force yet, and work on it goes on.
    Reconciling(Reason, String),
    /// The object is not in force, and nothing changes until someone acts.
    Stalled(Reason, String),
}

impl Summary {
    /// Returns the conditions Ready, Reconciling and Stalled.
    pub(super) fn conditions(&self) -> [NewCondition; 3] {
        use ConditionType::{Ready, Reconciling, Stalled};
        let done = |kind| NewCondition::no(kind, Reason::Reconciled, "");
        match self {
            Self::Ready(reason, message) => {
                [NewCondition::yes(Ready, *reason, message), done(Reconciling), done(Stalled)]
            }
            Self::Reconciling(reason, message) => [
                NewCondition::no(Ready, *reason, message),
                NewCondition::yes(Reconciling, *reason, message),
                done(Stalled),
            ],
            Self::Stalled(reason, message) => [
                NewCondition::no(Ready, *reason, message),
                NewCondition::no(Reconciling, *reason, ""),
                NewCondition::yes(Stalled, *reason, message),
            ],
        }
    }
}

/// Returns all conditions of a status: those of the summary first, then the others.
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

/// A status that has conditions.
pub(super) trait HasConditions: PartialEq {
    /// Returns the conditions.
    fn conditions(&self) -> &[Condition];
}

macro_rules! has_conditions {
    ($($status:ty),*) => {$(
        impl HasConditions for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
        }
    )*};
}

has_conditions!(MCPBudgetStatus, MCPPrincipalStatus, MCPScopeStatus, MCPServerStatus, MCPTenantStatus);

/// Whether the status says that the object is ready, and is about the object as it is written now. After an edit the
/// status still describes the generation before.
pub(super) fn is_ready_as_written<K>(object: &K) -> bool
where
    K: Resource + HasStatus,
    K::Status: HasConditions,
{
    let conditions = object.status().map(HasConditions::conditions).unwrap_or_default();
    condition::is_true_as_of(conditions, ConditionType::Ready, object.meta().generation)
}

/// How far an object is on its way to the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All gateways enforce it, or it is not on its way.
    Settled,
    /// It is being compiled, published or acknowledged, which usually takes milliseconds.
    Pending,
    /// It is enforced, and only figures about it change.
    Figures,
    /// This replica has not compiled it yet.
    Unknown,
}

impl Progress {
    /// Returns how long a status is held back, after a status with these conditions `before`.
    fn hold_back_time(self, before: &[Condition], after: &[Condition]) -> Duration {
        let is_on_its_way = |conditions| {
            ![ConditionType::Ready, ConditionType::Stalled].iter().any(|kind| condition::is_true(conditions, *kind))
        };
        match self {
            Self::Figures => HOLD_BACK_TIME_OF_FIGURES,
            _ if is_on_its_way(before) && is_on_its_way(after) => HOLD_BACK_TIME_OF_REASONS,
            _ => HOLD_BACK_TIME,
        }
    }
}

/// How long the status of an object that is on its way to the gateways is held back. It is outdated in a moment, and a
/// status that changes for a moment wakes everyone who watches the object.
const HOLD_BACK_TIME: Duration = Duration::from_secs(2);
/// How long a status is held back that only gives another reason why the object is not ready yet. While many objects are
/// applied at once, each of them is on its way for seconds.
const HOLD_BACK_TIME_OF_REASONS: Duration = Duration::from_secs(10);
/// How long a status is held back of which only figures changed that change all the time.
const HOLD_BACK_TIME_OF_FIGURES: Duration = Duration::from_secs(30);

/// Writes the status if it differs from the one before, and reports in an Event what changed about readiness. Returns
/// after which pause the object has to be reconciled again, if the status is held back.
pub(super) async fn write<K>(
    ctx: &Context,
    api: &Api<K>,
    object: &K,
    next: K::Status,
    progress: Progress,
) -> Result<Option<Duration>, ReconcileError>
where
    K: Resource<DynamicType = ()> + HasStatus + Clone + Serialize + DeserializeOwned + Debug,
    K::Status: HasConditions,
{
    let before = object.status().map(HasConditions::conditions).unwrap_or_default();
    let after = next.conditions().to_vec();
    let (uid, generation) = (object.uid().unwrap_or_default(), object.meta().generation);
    let shared = &ctx.shared_state;
    // What the previous leader saw enforced stays enforced.
    let is_unknown =
        progress == Progress::Unknown && condition::is_true_as_of(before, ConditionType::PolicyCurrent, generation);
    if object.status() == Some(&next) || is_premature(shared, before, &after) || is_unknown {
        shared.release(&uid);
        return Ok(None);
    }
    // Without any status, which a CRD of an earlier version allows, tools would consider a new object done.
    if progress != Progress::Settled
        && object.status().is_some()
        && let Some(pause) = shared.hold_back(&uid, progress.hold_back_time(before, &after))
    {
        return Ok(Some(pause));
    }
    shared.release(&uid);
    let mut written = object.clone();
    written.meta_mut().managed_fields = None;
    *written.status_mut() = Some(next);
    match api.replace_status(&object.name_any(), &PostParams::default(), &written).await {
        // The API server took it, and only its answer cannot be read: the object is torn down without the fields that
        // cannot be read.
        Ok(_) | Err(kube::Error::SerdeError(_)) => {}
        Err(source) => return Err(ReconcileError::Api { verb: "write a status", source }),
    }
    report_readiness(&ctx.events, object, before, &after).await;
    spending::report(&ctx.events, object, before, &after).await;
    spending::report_top_up(&ctx.events, api, object, before, &after).await;
    Ok(None)
}

/// Whether a new leader would only report that it does not know yet. The status before stays until gateways had the time
/// to find the new leader.
fn is_premature(state: &SharedState, before: &[Condition], after: &[Condition]) -> bool {
    let unknown = [Reason::AwaitingAcknowledgement, Reason::Progressing];
    state.is_warming_up()
        && condition::is_true(before, ConditionType::Ready)
        && condition::find(after, ConditionType::Ready)
            .is_some_and(|ready| unknown.iter().any(|reason| reason.as_str() == ready.reason))
}

/// Reasons for which something is tried again, and that people should see.
const FAILURES: [Reason; 6] = [
    Reason::Failed,
    Reason::ImageNotPulled,
    Reason::Unschedulable,
    Reason::PodRefused,
    Reason::QuotaExceeded,
    Reason::StartFailed,
];

/// Writes an Event when an object becomes ready, or is not ready for a new reason.
///
/// Scopes, principals and budgets become ready within a second of their creation, and a fleet has tens of thousands of them:
/// they only report that they are ready if they could not be before. Otherwise such Events were a fifth of all writes.
async fn report_readiness<K: Resource<DynamicType = ()>>(
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
    let is_stuck = |conditions: &[Condition], ready: &Condition| {
        condition::is_true(conditions, ConditionType::Stalled)
            || FAILURES.iter().any(|reason| ready.reason == reason.as_str())
    };
    let runs_pods = ["MCPTenant", "MCPServer"].contains(&&*K::kind(&()));
    if is.status == "True" {
        if !runs_pods && was.is_none_or(|was| was.status != "True" && !is_stuck(before, was)) {
            return;
        }
        events.normal(object, "Ready", "Reconcile", is.message.clone()).await;
    } else if is_stuck(after, is) {
        events.warning(object, &is.reason, "Reconcile", is.message.clone()).await;
    } else if was.is_some_and(|was| was.status == "True") {
        events.normal(object, &is.reason, "Reconcile", is.message.clone()).await;
    }
}
