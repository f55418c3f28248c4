//! Step five: the status of a tenant.

use jiff::Timestamp;
use kube::Api;
use mcp_fleet_crds::budget::Spending;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPTenant, MCPTenantStatus};
use serde_json::Value;

use super::apply::Applied;
use super::quota::uncounted;
use crate::config::gateway_origin;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::outcome::Outcome;
use crate::controllers::status::{self, Summary};
use crate::shared_state::verdict::TenantState;

/// Writes the status of a tenant after a reconcile.
pub(super) async fn write(ctx: &Context, object: &MCPTenant, outcome: &Outcome<Applied>) -> Result<(), ReconcileError> {
    let api: Api<MCPTenant> = Api::all(ctx.client.clone());
    status::write(ctx, &api, object, status(object, outcome, Timestamp::now())).await
}

/// Returns the status that follows from the outcome of a reconcile. Pure.
fn status(object: &MCPTenant, outcome: &Outcome<Applied>, now: Timestamp) -> MCPTenantStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let conditions = |summary, others| status::conditions(&before.conditions, &summary, others, generation, now);
    let applied = match outcome.applied() {
        Ok(applied) => applied,
        Err(summary) => {
            let conditions = conditions(summary, vec![]);
            return MCPTenantStatus { observed_generation: generation, conditions, ..before };
        }
    };
    let state = &applied.enforcement.state;
    let spending = spending(object, state);
    let mut others = vec![applied.enforcement.policy_current(generation)];
    others.extend(spending.as_ref().and_then(exhausted));
    MCPTenantStatus {
        observed_generation: generation,
        namespace: Some(applied.tenant.namespace.clone()),
        runtime_namespace: Some(applied.tenant.runtime_namespace.clone()),
        url: Some(gateway_origin(&applied.tenant.runtime_namespace)),
        // A new leader does not know them at once; until then what was published last still is.
        policy_generation: published(state.generation).or(before.policy_generation),
        policy_digest: state.digest.clone().or(before.policy_digest.clone()),
        gateways: state.gateways.clone(),
        conditions: conditions(summary(applied), others),
        spending,
    }
}

/// Returns the spending against `spendLimit`. A new leader does not know it at once; until then the status before is
/// kept.
fn spending(object: &MCPTenant, state: &TenantState) -> Option<Spending> {
    object.spec.spend_limit.as_ref()?;
    state.spending.clone().or_else(|| object.status.as_ref()?.spending.clone())
}

fn published(generation: u64) -> Option<i64> {
    i64::try_from(generation).ok().filter(|generation| *generation > 0)
}

fn summary(applied: &Applied) -> Summary {
    let Applied { tenant, gateway, quota, enforcement } = applied;
    if let Some(verdict) = enforcement.rejected() {
        return Summary::Stalled(verdict.reason, verdict.message.clone());
    }
    if !is_available(gateway) {
        let message = "the gateway's pod is not ready yet; see the Deployment gateway in the runtime namespace";
        return Summary::Reconciling(Reason::GatewayUnavailable, message.into());
    }
    let state = &enforcement.state;
    if state.current() == 0 {
        let (reason, message) = state.error.clone().unwrap_or_else(|| {
            (Reason::AwaitingAcknowledgement, "no gateway has acknowledged the newest policy yet".into())
        });
        return Summary::Reconciling(reason, message);
    }
    let uncounted = uncounted(quota);
    if !uncounted.is_empty() {
        let message = format!(
            "Kubernetes has not counted {} in the namespace {} yet, and refuses new objects there until it has; it looks \
             for new kinds every 30 seconds",
            uncounted.join(", "),
            tenant.namespace
        );
        return Summary::Reconciling(Reason::QuotaNotCounted, message);
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

/// Whether a Deployment has been rolled out as it is written, and at least one pod is available.
fn is_available(deployment: &Value) -> bool {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    number("/status/observedGeneration") >= number("/metadata/generation")
        && number("/status/updatedReplicas") >= number("/spec/replicas")
        && number("/status/availableReplicas") >= 1
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::condition::{find, is_true};
    use mcp_fleet_crds::tenant::GatewayStatus;
    use serde_json::json;

    use super::*;
    use crate::controllers::enforcement::Enforcement;
    use crate::controllers::tenant::tests::{checked, tenant};
    use crate::shared_state::verdict::Verdict;

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

    fn status_of(object: &MCPTenant, gateway: &Value, quota: &Value, state: &TenantState) -> MCPTenantStatus {
        let enforcement = Enforcement { state: state.clone(), verdict: Some(verdict()) };
        let applied = Applied { tenant: checked(), gateway: gateway.clone(), quota: quota.clone(), enforcement };
        status(object, &Outcome::Applied(applied), "2026-11-22T12:00:00Z".parse().unwrap())
    }

    fn with_gateway(gateway: &Value, state: &TenantState) -> MCPTenantStatus {
        status_of(&tenant(), gateway, &Value::Null, state)
    }

    fn again(object: &MCPTenant, state: &TenantState) -> MCPTenantStatus {
        status_of(object, &available(), &Value::Null, state)
    }

    #[test]
    fn a_tenant_is_ready_once_a_gateway_enforces_its_policy() {
        let done = with_gateway(&available(), &state(3, 3));
        assert!(is_true(&done.conditions, ConditionType::Ready));
        assert!(is_true(&done.conditions, ConditionType::PolicyCurrent));
        assert_eq!(done.url.as_deref(), Some("https://gateway.acme-mcp.svc"));
    }

    #[test]
    fn a_policy_that_is_not_acknowledged_is_not_current() {
        let behind = with_gateway(&available(), &state(4, 3));
        assert!(!is_true(&behind.conditions, ConditionType::Ready));
        assert_eq!(find(&behind.conditions, ConditionType::PolicyCurrent).unwrap().reason, "AwaitingAcknowledgement");
    }

    #[test]
    fn a_rollout_that_is_under_way_is_not_ready() {
        let mut gateway = available();
        gateway["metadata"]["generation"] = json!(3);
        assert!(!is_true(&with_gateway(&gateway, &state(3, 3)).conditions, ConditionType::Ready));
    }

    #[test]
    fn equal_inputs_give_an_equal_status() {
        let mut object = tenant();
        object.status = Some(with_gateway(&available(), &state(3, 3)));
        let later = again(&object, &state(3, 3));
        assert_eq!(object.status, Some(later));
    }

    #[test]
    fn a_tenant_is_not_ready_while_its_quota_refuses_every_object() {
        let name = "count/mcpservers.mcp-fleet.dev";
        let mut quota = json!({"spec": {"hard": {name: "5"}}, "status": {"hard": {name: "5"}}});
        let conditions = |quota: &Value| status_of(&tenant(), &available(), quota, &state(3, 3)).conditions;
        let waiting = conditions(&quota);
        let ready = find(&waiting, ConditionType::Ready).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "QuotaNotCounted"));
        assert!(ready.message.contains(name) && is_true(&waiting, ConditionType::Reconciling), "{}", ready.message);
        quota["status"]["used"] = json!({name: "0"});
        assert!(is_true(&conditions(&quota), ConditionType::Ready));
    }

    #[test]
    fn a_new_leader_that_has_published_nothing_keeps_the_generation() {
        let mut object = tenant();
        object.status = Some(with_gateway(&available(), &state(3, 3)));
        let taken_over = again(&object, &TenantState::default());
        assert_eq!(taken_over.policy_generation, Some(3));
    }

    #[test]
    fn a_new_leader_that_does_not_know_the_spending_keeps_it() {
        let mut object = tenant();
        object.spec.spend_limit =
            Some(serde_json::from_value(json!({"amount": "5.00", "currency": "EUR", "period": "Day"})).unwrap());
        let period = json!({"start": "2026-11-22T00:00:00Z", "end": "2026-11-23T00:00:00Z"});
        let spent =
            json!({"currentPeriod": period, "spent": "5.00", "leased": "0", "forfeited": "0", "remaining": "0"});
        let known = TenantState { spending: Some(serde_json::from_value(spent).unwrap()), ..state(3, 3) };
        object.status = Some(again(&object, &known));
        assert!(is_true(&object.status.as_ref().unwrap().conditions, ConditionType::Exhausted));
        assert_eq!(object.status, Some(again(&object, &state(3, 3))));
        // Without a limit there is no spending to show.
        object.spec.spend_limit = None;
        assert!(again(&object, &known).spending.is_none());
    }
}
