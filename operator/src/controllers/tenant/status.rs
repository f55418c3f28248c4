//! Step five: the status of a tenant.

use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use mcp_fleet_crds::budget::Spending;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPTenant, MCPTenantStatus};
use serde_json::Value;

use super::apply::{Applied, Pods};
use super::quota::uncounted;
use crate::config::gateway_origin;
use crate::context::Context;
use crate::controllers::enforcement::Enforcement;
use crate::controllers::error::ReconcileError;
use crate::controllers::outcome::Outcome;
use crate::controllers::status::{self, Progress, Summary};
use crate::rollout::Progress as Rollout;

/// Writes the status of a tenant after a reconcile. Returns when to reconcile again, if the status is held back.
pub(super) async fn write(
    ctx: &Context,
    object: &MCPTenant,
    outcome: &Outcome<Applied>,
) -> Result<Option<Duration>, ReconcileError> {
    let api: Api<MCPTenant> = Api::all(ctx.client.clone());
    let next = status(object, outcome, Timestamp::now());
    let progress = match outcome {
        Outcome::Applied(_) if differs_in_policy_only(object, &next) => Progress::Figures,
        Outcome::Applied(Applied { enforcement, .. }) if enforcement.state.has_gateway() => {
            enforcement.progress(object.metadata.generation)
        }
        // A gateway that reconnects is away for a moment.
        Outcome::Applied(_) => Progress::Pending,
        _ => Progress::Settled,
    };
    status::write(ctx, &api, object, next, progress).await
}

/// Whether only the newest policy and the gateways' generations have changed. Every edit of one of the tenant's objects
/// changes them, so they are not written each time.
fn differs_in_policy_only(object: &MCPTenant, next: &MCPTenantStatus) -> bool {
    let Some(before) = &object.status else { return false };
    let with_policy_before = MCPTenantStatus {
        policy_generation: before.policy_generation,
        policy_digest: before.policy_digest.clone(),
        gateway_replicas: before.gateway_replicas,
        gateways: before.gateways.clone(),
        ..next.clone()
    };
    with_policy_before == *before
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
    let spending = spending(object, applied.spending.as_ref());
    let mut others = vec![policy_current(&applied.enforcement, generation)];
    others.extend(spending.as_ref().and_then(exhausted));
    others.push(pods_current(&applied.pods));
    others.extend(applied.endpoint.condition.clone());
    MCPTenantStatus {
        observed_generation: generation,
        namespace: Some(applied.tenant.namespace.clone()),
        runtime_namespace: Some(applied.tenant.runtime_namespace.clone()),
        url: Some(gateway_origin(&applied.tenant.runtime_namespace)),
        public_name: applied.endpoint.public_name.clone(),
        former_urls: applied.endpoint.former_urls.clone(),
        // A new leader does not know them at once; until then what was published last still is.
        policy_generation: published(state.generation).or(before.policy_generation),
        policy_digest: state.digest.clone().or(before.policy_digest.clone()),
        gateway_replicas: i32::try_from(number(&applied.gateway, "/status/replicas")).ok(),
        gateways: if applied.enforcement.warming_up && state.gateways.is_empty() {
            before.gateways
        } else {
            state.gateways.clone()
        },
        conditions: conditions(summary(applied, generation), others),
        spending,
    }
}

/// Returns the spending against `spendLimit`. A new leader does not know it at once; until then the status before is
/// kept.
fn spending(object: &MCPTenant, spending: Option<&Spending>) -> Option<Spending> {
    object.spec.spend_limit.as_ref()?;
    spending.cloned().or_else(|| object.status.as_ref()?.spending.clone())
}

fn published(generation: u64) -> Option<i64> {
    i64::try_from(generation).ok().filter(|generation| *generation > 0)
}

/// Returns the condition `PolicyCurrent`. Unlike other objects, the tenant also shows when its newest policy cannot be
/// published or enforced.
fn policy_current(enforcement: &Enforcement, generation: Option<i64>) -> NewCondition {
    match &enforcement.state.error {
        Some((reason, message)) => NewCondition::no(ConditionType::PolicyCurrent, *reason, message),
        None => enforcement.policy_current(generation),
    }
}

fn summary(applied: &Applied, generation: Option<i64>) -> Summary {
    let Applied { tenant, gateway, quota, enforcement, .. } = applied;
    if let Some(verdict) = enforcement.rejected() {
        return Summary::Stalled(verdict.reason, verdict.message.clone());
    }
    let pods = ready_pods(tenant.gateway_replicas, gateway);
    if !is_available(gateway) {
        let message = format!("{pods}; see the Deployment gateway in the namespace {}", tenant.runtime_namespace);
        return Summary::Reconciling(Reason::GatewayUnavailable, message);
    }
    let state = &enforcement.state;
    let has_gateway = state.has_gateway() || enforcement.warming_up;
    if !has_gateway || !enforcement.is_enforced_by_any(generation) {
        let (reason, message) = state.error.clone().unwrap_or_else(|| {
            (Reason::AwaitingAcknowledgement, "no gateway has acknowledged the tenant's policy yet".into())
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
    Summary::Ready(Reason::Reconciled, format!("the gateway enforces the tenant's policy; {pods}"))
}

fn ready_pods(declared: u32, gateway: &Value) -> String {
    let (ready, wanted) = (number(gateway, "/status/readyReplicas"), number(gateway, "/spec/replicas"));
    let waits = if wanted < i64::from(declared) { "; there is one until the pods run the newest image" } else { "" };
    format!("{ready} of {declared} gateway pods are ready{waits}")
}

fn pods_current(pods: &Pods) -> NewCondition {
    let kind = ConditionType::PodsCurrent;
    let Pods { progress, target, is_paused } = pods;
    match progress {
        Rollout::Updated => NewCondition::yes(kind, Reason::UpToDate, format!("the pods run {target}")),
        Rollout::Updating => {
            NewCondition::no(kind, Reason::Progressing, format!("the pods are being updated to {target}"))
        }
        Rollout::Pending { image } => {
            let when = if *is_paused { "the rollout is paused" } else { "other tenants come first" };
            let message = format!("the pods run {image} and will be updated to {target}; {when}");
            NewCondition::no(kind, Reason::RolloutPending, message)
        }
    }
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

/// Whether a Deployment has been rolled out as it is written, and as many pods are available as while one of several is
/// replaced.
pub(super) fn is_available(deployment: &Value) -> bool {
    let wanted = number(deployment, "/spec/replicas");
    number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation")
        // One that cannot be created, for want of quota, is missing in both.
        && number(deployment, "/status/updatedReplicas") >= number(deployment, "/status/replicas")
        && number(deployment, "/status/updatedReplicas") >= (wanted - 1).max(1)
        && number(deployment, "/status/availableReplicas") >= (wanted - 1).max(1)
}

fn number(deployment: &Value, pointer: &str) -> i64 {
    deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use mcp_fleet_core::shared_state::verdict::{PolicyEntry, TenantState, Verdict};
    use mcp_fleet_crds::condition::{find, is_true};
    use mcp_fleet_crds::tenant::GatewayStatus;
    use serde_json::json;

    use super::*;
    use crate::controllers::tenant::endpoint::Decision;
    use crate::controllers::tenant::tests::{checked, tenant};

    fn available() -> Value {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": 1},
               "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1,
                          "availableReplicas": 1}})
    }

    fn state(published: u64, acknowledged: i64) -> TenantState {
        TenantState {
            generation: published,
            gateways: vec![GatewayStatus { pod: "gateway-1".into(), policy_generation: acknowledged }],
            enforced_by_all: u64::try_from(acknowledged).unwrap(),
            ..TenantState::default()
        }
    }

    /// The tenant as it is written is part of the policy since generation 3.
    fn entry() -> PolicyEntry {
        let verdict = Verdict { ok: true, reason: Reason::Reconciled, message: String::new(), object_generation: 1 };
        PolicyEntry { verdict, since: 3, has_address: false }
    }

    fn applied(gateway: &Value, quota: &Value, state: &TenantState) -> Applied {
        let enforcement = Enforcement { state: state.clone(), entry: Some(entry()), warming_up: false };
        Applied {
            tenant: checked(),
            gateway: gateway.clone(),
            quota: quota.clone(),
            enforcement,
            spending: None,
            endpoint: Decision::default(),
            pods: pods(Rollout::Updated, false),
            pulls_again: None,
        }
    }

    fn pods(progress: Rollout, is_paused: bool) -> Pods {
        Pods { progress, target: "mcp-pod:2".into(), is_paused }
    }

    #[test]
    fn a_tenant_says_how_far_the_rollout_has_come() {
        let of = |progress, is_paused| {
            let condition = pods_current(&pods(progress, is_paused));
            (condition.status, condition.reason, condition.message)
        };
        let pending = Rollout::Pending { image: "mcp-pod:1".into() };
        assert_eq!(of(Rollout::Updated, true).0, Some(true));
        assert_eq!(of(Rollout::Updating, false).1, Reason::Progressing);
        assert_eq!(of(pending.clone(), false).1, Reason::RolloutPending);
        let (status, _, message) = of(pending, true);
        assert_eq!(status, Some(false));
        assert!(
            message.contains("mcp-pod:1") && message.contains("mcp-pod:2") && message.contains("paused"),
            "{message}"
        );
    }

    fn status_from(object: &MCPTenant, applied: Applied) -> MCPTenantStatus {
        status(object, &Outcome::Applied(applied), "2026-11-22T12:00:00Z".parse().unwrap())
    }

    fn status_of(object: &MCPTenant, gateway: &Value, quota: &Value, state: &TenantState) -> MCPTenantStatus {
        status_from(object, applied(gateway, quota, state))
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
        let behind = with_gateway(&available(), &state(3, 2));
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
    fn of_several_gateways_one_may_be_missing() {
        let several = |available: i64| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {"observedGeneration": 2,
                "replicas": 3, "updatedReplicas": 3, "readyReplicas": available, "availableReplicas": available}})
        };
        let status = |available| {
            let mut applied = applied(&several(available), &Value::Null, &state(3, 3));
            applied.tenant.gateway_replicas = 3;
            status_from(&tenant(), applied)
        };
        let message =
            |status: &MCPTenantStatus| find(&status.conditions, ConditionType::Ready).unwrap().message.clone();
        let (most, few) = (status(2), status(1));
        assert!(is_true(&most.conditions, ConditionType::Ready) && !is_true(&few.conditions, ConditionType::Ready));
        assert!(message(&most).ends_with("2 of 3 gateway pods are ready"), "{}", message(&most));
        assert!(message(&few).starts_with("1 of 3 gateway pods are ready"), "{}", message(&few));
        assert_eq!(most.gateway_replicas, Some(3));
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
    fn a_new_leader_that_no_gateway_has_found_yet_keeps_the_status() {
        let mut object = tenant();
        object.status = Some(with_gateway(&available(), &state(3, 3)));
        let mut applied = applied(&available(), &Value::Null, &TenantState::default());
        applied.enforcement.warming_up = true;
        applied.enforcement.entry = Some(PolicyEntry { since: 0, ..entry() });
        assert_eq!(object.status, Some(status_from(&object, applied)));
    }

    #[test]
    fn a_policy_that_another_object_caused_leaves_the_conditions_as_they_are() {
        let mut object = tenant();
        object.status = Some(with_gateway(&available(), &state(3, 3)));
        let newer = again(&object, &state(4, 3));
        assert_eq!(object.status.as_ref().unwrap().conditions, newer.conditions);
        assert!(differs_in_policy_only(&object, &newer));
        let refused = TenantState { error: Some((Reason::PolicyRefused, "because".into())), ..state(4, 3) };
        let refused = again(&object, &refused);
        assert_eq!(find(&refused.conditions, ConditionType::PolicyCurrent).unwrap().reason, "PolicyRefused");
        assert!(is_true(&refused.conditions, ConditionType::Ready) && !differs_in_policy_only(&object, &refused));
    }

    #[test]
    fn a_new_leader_that_does_not_know_the_spending_keeps_it() {
        let mut object = tenant();
        object.spec.spend_limit =
            Some(serde_json::from_value(json!({"amount": "5.00", "currency": "EUR", "period": "Day"})).unwrap());
        let period = json!({"start": "2026-11-22T00:00:00Z", "end": "2026-11-23T00:00:00Z"});
        let spent =
            json!({"currentPeriod": period, "spent": "5.00", "leased": "0", "forfeited": "0", "remaining": "0"});
        let mut known = applied(&available(), &Value::Null, &state(3, 3));
        known.spending = Some(serde_json::from_value(spent).unwrap());
        object.status = Some(status_from(&object, known.clone()));
        assert!(is_true(&object.status.as_ref().unwrap().conditions, ConditionType::Exhausted));
        assert_eq!(object.status, Some(again(&object, &state(3, 3))));
        // Without a limit there is no spending to show.
        object.spec.spend_limit = None;
        assert!(status_from(&object, known).spending.is_none());
    }
}
