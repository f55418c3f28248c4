//! Step five: what is said about a tenant. Pure, but for the write at the end.

use jiff::Timestamp;
use kube::Api;
use mcp_fleet_crds::budget::Spending;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPTenant, MCPTenantStatus};
use serde_json::Value;

use super::quota::uncounted;
use super::validate::{Refusal, Tenant};
use crate::config::gateway_origin;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::status::{self, Summary};
use crate::shared_state::verdict::{TenantState, Verdict};

/// What the reconcile came to.
#[derive(Clone, Debug)]
pub(crate) enum Judged<'a> {
    /// The claims hold, and everything was applied.
    Applied {
        /// The tenant.
        tenant: &'a Tenant,
        /// The live Deployment of its gateway.
        gateway: &'a Value,
        /// The live quota of its namespace; null if there is none.
        quota: &'a Value,
        /// How far its policy is enforced.
        state: &'a TenantState,
        /// What the compiler made of it.
        verdict: Option<&'a Verdict>,
    },
    /// The claims do not hold.
    Refused(&'a Refusal),
    /// Something failed.
    Failed {
        /// The whole chain.
        message: String,
        /// Whether trying again will not help.
        stuck: bool,
    },
    /// It is being deleted.
    Leaving(&'static str),
}

/// The status that follows from it.
pub(crate) fn status(object: &MCPTenant, judged: &Judged<'_>, now: Timestamp) -> MCPTenantStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let (summary, others) = match judged {
        Judged::Applied { tenant, gateway, quota, state, verdict } => {
            let mut others = vec![status::policy_current(state, *verdict, generation)];
            others.extend(spending(object, state).as_ref().and_then(exhausted));
            (summary(tenant, gateway, quota, state, *verdict), others)
        }
        Judged::Refused(refusal) => (Summary::Stuck(refusal.reason, refusal.message.clone()), vec![]),
        Judged::Failed { message, stuck: true } => (Summary::Stuck(Reason::Failed, message.clone()), vec![]),
        Judged::Failed { message, stuck: false } => (Summary::Working(Reason::Failed, message.clone()), vec![]),
        Judged::Leaving(step) => (Summary::Working(Reason::Terminating, (*step).to_owned()), vec![]),
    };
    let conditions = status::conditions(&before.conditions, &summary, others, generation, now);
    match judged {
        Judged::Applied { tenant, state, .. } => MCPTenantStatus {
            observed_generation: generation,
            namespace: Some(tenant.namespace.clone()),
            runtime_namespace: Some(tenant.runtime_namespace.clone()),
            url: Some(gateway_origin(&tenant.runtime_namespace)),
            // A new leader learns them after a moment; until then what was published last still is.
            policy_generation: published(state.generation).or(before.policy_generation),
            policy_digest: state.digest.clone().or(before.policy_digest),
            gateways: state.gateways.clone(),
            spending: spending(object, state),
            conditions,
        },
        _ => MCPTenantStatus { observed_generation: generation, conditions, ..before },
    }
}

/// Where the ceiling stands. A new leader knows after a moment; until then what was said before holds.
fn spending(object: &MCPTenant, state: &TenantState) -> Option<Spending> {
    object.spec.spend_limit.as_ref()?;
    state.spending.clone().or_else(|| object.status.as_ref()?.spending.clone())
}

fn published(generation: u64) -> Option<i64> {
    i64::try_from(generation).ok().filter(|generation| *generation > 0)
}

fn summary(tenant: &Tenant, gateway: &Value, quota: &Value, state: &TenantState, verdict: Option<&Verdict>) -> Summary {
    if let Some(verdict) = verdict.filter(|verdict| !verdict.ok) {
        return Summary::Stuck(verdict.reason, verdict.message.clone());
    }
    if !is_available(gateway) {
        let message = "the gateway's pod is not ready yet; see the Deployment gateway in the runtime namespace";
        return Summary::Working(Reason::GatewayUnavailable, message.into());
    }
    if state.current() == 0 {
        let (reason, message) = state.error.clone().unwrap_or_else(|| {
            (Reason::AwaitingAcknowledgement, "no gateway has acknowledged the newest policy yet".into())
        });
        return Summary::Working(reason, message);
    }
    let uncounted = uncounted(quota);
    if !uncounted.is_empty() {
        let message = format!(
            "Kubernetes has not counted {} in the namespace {} yet, and refuses new objects there until it has; it looks \
             for new kinds every 30 seconds",
            uncounted.join(", "),
            tenant.namespace
        );
        return Summary::Working(Reason::QuotaNotCounted, message);
    }
    if tenant.suspended {
        return Summary::Ready(Reason::Suspended, "suspended: every call is refused".into());
    }
    Summary::Ready(Reason::Reconciled, format!("{} enforces policy {}", gateways(state.current()), state.generation))
}

fn gateways(count: usize) -> String {
    if count == 1 { "1 gateway".into() } else { format!("{count} gateways") }
}

fn exhausted(spending: &Spending) -> Option<NewCondition> {
    let remaining = spending.remaining?;
    let kind = ConditionType::Exhausted;
    Some(if remaining.get() == 0 {
        NewCondition::yes(kind, Reason::LimitReached, "spendLimit is reached; priced calls are refused")
    } else {
        NewCondition::no(kind, Reason::WithinLimit, "")
    })
}

/// Whether a Deployment runs what it says, with a pod that serves.
pub(super) fn is_available(deployment: &Value) -> bool {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    number("/status/observedGeneration") >= number("/metadata/generation")
        && number("/status/updatedReplicas") >= number("/spec/replicas")
        && number("/status/availableReplicas") >= 1
}

/// Writes it, if it is another than before.
pub(crate) async fn write(ctx: &Context, object: &MCPTenant, judged: &Judged<'_>) -> Result<(), ReconcileError> {
    let api: Api<MCPTenant> = Api::all(ctx.client.clone());
    status::publish(ctx, &api, object, status(object, judged, Timestamp::now())).await
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::condition::{find, is_true};
    use mcp_fleet_crds::tenant::GatewayStatus;
    use serde_json::json;

    use super::*;
    use crate::controllers::tenant::tests::{checked, tenant};

    fn available() -> Value {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": 1},
               "status": {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}})
    }

    fn state(published: u64, acknowledged: i64) -> TenantState {
        TenantState {
            generation: published,
            gateways: vec![GatewayStatus { pod: "gateway-1".into(), policy_generation: acknowledged }],
            ..TenantState::default()
        }
    }

    fn verdict() -> Verdict {
        Verdict { ok: true, reason: Reason::Reconciled, message: String::new(), object_generation: 1 }
    }

    fn judge(gateway: &Value, state: &TenantState) -> MCPTenantStatus {
        judge_of(&tenant(), gateway, state)
    }

    fn judge_of(object: &MCPTenant, gateway: &Value, state: &TenantState) -> MCPTenantStatus {
        let (tenant_checked, verdict) = (checked(), verdict());
        let quota = &Value::Null;
        let judged = Judged::Applied { tenant: &tenant_checked, gateway, quota, state, verdict: Some(&verdict) };
        status(object, &judged, "2026-11-22T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_tenant_is_ready_once_a_gateway_enforces_its_policy() {
        let done = judge(&available(), &state(3, 3));
        assert!(is_true(&done.conditions, ConditionType::Ready));
        assert!(is_true(&done.conditions, ConditionType::PolicyCurrent));
        assert_eq!(done.url.as_deref(), Some("https://gateway.acme-mcp.svc"));
    }

    #[test]
    fn a_policy_that_is_not_acknowledged_is_not_current() {
        let behind = judge(&available(), &state(4, 3));
        assert!(!is_true(&behind.conditions, ConditionType::Ready));
        assert_eq!(find(&behind.conditions, ConditionType::PolicyCurrent).unwrap().reason, "AwaitingAcknowledgement");
    }

    #[test]
    fn a_rollout_that_is_under_way_is_not_ready() {
        let mut gateway = available();
        gateway["metadata"]["generation"] = json!(3);
        assert!(!is_true(&judge(&gateway, &state(3, 3)).conditions, ConditionType::Ready));
    }

    #[test]
    fn equal_facts_give_an_equal_status() {
        let mut object = tenant();
        object.status = Some(judge(&available(), &state(3, 3)));
        let later = judge_of(&object, &available(), &state(3, 3));
        assert_eq!(object.status, Some(later));
    }

    #[test]
    fn a_tenant_is_not_ready_while_its_quota_refuses_every_object() {
        let name = "count/mcpservers.mcp-fleet.dev";
        let mut quota = json!({"spec": {"hard": {name: "5"}}, "status": {"hard": {name: "5"}}});
        let judge = |quota: &Value| {
            let (checked, verdict, gateway, state) = (checked(), verdict(), available(), state(3, 3));
            let judged =
                Judged::Applied { tenant: &checked, gateway: &gateway, quota, state: &state, verdict: Some(&verdict) };
            status(&tenant(), &judged, "2026-11-22T12:00:00Z".parse().unwrap()).conditions
        };
        let waiting = judge(&quota);
        let ready = find(&waiting, ConditionType::Ready).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "QuotaNotCounted"));
        assert!(ready.message.contains(name) && is_true(&waiting, ConditionType::Reconciling), "{}", ready.message);
        quota["status"]["used"] = json!({name: "0"});
        assert!(is_true(&judge(&quota), ConditionType::Ready));
    }

    #[test]
    fn a_new_leader_that_has_published_nothing_yet_keeps_the_generation_that_is_out() {
        let mut object = tenant();
        object.status = Some(judge(&available(), &state(3, 3)));
        let taken_over = judge_of(&object, &available(), &TenantState::default());
        assert_eq!(taken_over.policy_generation, Some(3));
    }

    #[test]
    fn a_new_leader_that_knows_no_spending_yet_changes_nothing() {
        let mut object = tenant();
        object.spec.spend_limit =
            Some(serde_json::from_value(json!({"amount": "5.00", "currency": "EUR", "period": "Day"})).unwrap());
        let period = json!({"start": "2026-11-22T00:00:00Z", "end": "2026-11-23T00:00:00Z"});
        let spent =
            json!({"currentPeriod": period, "spent": "5.00", "leased": "0", "forfeited": "0", "remaining": "0"});
        let known = TenantState { spending: Some(serde_json::from_value(spent).unwrap()), ..state(3, 3) };
        object.status = Some(judge_of(&object, &available(), &known));
        assert!(is_true(&object.status.as_ref().unwrap().conditions, ConditionType::Exhausted));
        assert_eq!(object.status, Some(judge_of(&object, &available(), &state(3, 3))));
        // Without a ceiling there is nothing to say.
        object.spec.spend_limit = None;
        assert!(judge_of(&object, &available(), &known).spending.is_none());
    }
}
