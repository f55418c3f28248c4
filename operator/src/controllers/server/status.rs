//! Step five: the status of a server.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, ResourceExt};
use mcp_fleet_core::policy::compile::name_list;
use mcp_fleet_crds::argument::Wide;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition, find};
use mcp_fleet_crds::names::PORTABLE_TOOL_NAME;
use mcp_fleet_crds::server::Tool;
use mcp_fleet_crds::{MCPServer, MCPServerStatus};
use serde_json::Value;

use super::apply::Applied;
use super::diagnosis::Diagnosis;
use super::growth;
use crate::config::gateway_origin;
use crate::context::Context;
use crate::controllers::enforcement::Enforcement;
use crate::controllers::error::ReconcileError;
use crate::controllers::outcome::{Outcome, Until};
use crate::controllers::status::{self, Progress, Summary};

/// Writes the status of a server after a reconcile. Returns when to reconcile again, if the status is held back.
pub(super) async fn write(
    ctx: &Context,
    object: &MCPServer,
    outcome: &Outcome<Applied>,
    diagnosis: Option<&Diagnosis>,
) -> Result<Option<Duration>, ReconcileError> {
    let api: Api<MCPServer> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let progress = match outcome {
        Outcome::Applied(applied) => applied.enforcement.progress(object.metadata.generation),
        Outcome::Rejected(rejection) if rejection.until == Until::Prepared => Progress::Pending,
        _ => Progress::Settled,
    };
    status::write(ctx, &api, object, status(object, outcome, diagnosis, Timestamp::now()), progress).await
}

/// Returns the status that follows from the outcome of a reconcile. Pure.
fn status(
    object: &MCPServer,
    outcome: &Outcome<Applied>,
    diagnosis: Option<&Diagnosis>,
    now: Timestamp,
) -> MCPServerStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let conditions = |summary, others| status::conditions(&before.conditions, &summary, others, generation, now);
    let applied = match outcome.applied() {
        Ok(applied) => applied,
        Err(summary) => {
            let rejection = outcome.rejection();
            let accepted = rejection.map(|it| NewCondition::no(ConditionType::Accepted, it.reason, &it.message));
            let conditions = conditions(summary, accepted.into_iter().collect());
            return MCPServerStatus { observed_generation: generation, conditions, ..before };
        }
    };
    let Applied { server, workload, enforcement, growth } = applied;
    let policy = enforcement.policy_current(generation);
    // What is not known at the moment is most likely as it was.
    let diagnosis = diagnosis.cloned().or_else(|| Diagnosis::before(&before.conditions, generation));
    let summary = summary(applied, diagnosis.as_ref(), &policy);
    let mut others = vec![accepted(enforcement), policy];
    others.extend(growth.as_ref().map(|growth| growth::condition(growth, &before.conditions)));
    others.extend(wide(object));
    others.extend(unportable(object));
    let mut next = MCPServerStatus {
        observed_generation: generation,
        url: Some(format!("{}/{}/mcp", gateway_origin(&server.runtime_namespace), server.id.name)),
        ready_replicas: i32::try_from(number(workload, "/status/readyReplicas")).ok(),
        conditions: conditions(summary, others),
        ..before
    };
    if enforcement.verdict().is_some_and(|it| it.ok && Some(it.object_generation) >= generation) {
        next.tools = i32::try_from(object.spec.tools.len()).ok();
    }
    next
}

fn accepted(enforcement: &Enforcement) -> NewCondition {
    match enforcement.rejected() {
        Some(verdict) => NewCondition::no(ConditionType::Accepted, verdict.reason, &verdict.message),
        None => match enforcement.verdict().filter(|verdict| verdict.reason == Reason::PricesRaised) {
            Some(verdict) => NewCondition::yes(ConditionType::Accepted, Reason::PricesRaised, &verdict.message),
            None => NewCondition::yes(ConditionType::Accepted, Reason::Reconciled, ""),
        },
    }
}

/// Returns the condition that names the tools which accept any JSON as the spec is written; none if there are none.
fn wide(object: &MCPServer) -> Option<NewCondition> {
    let is_wide = |tool: &&Tool| tool.arguments.iter().any(Wide::is_wide);
    let names: Vec<&str> = object.spec.tools.iter().filter(is_wide).map(|tool| &*tool.name).collect();
    let message = format!("arguments of type Json, of which only size and depth are checked: {}", names.join(", "));
    (!names.is_empty()).then(|| NewCondition::yes(ConditionType::WideArguments, Reason::AnyJson, message))
}

/// Returns the condition that names the tools whose names for agents common model APIs refuse, as the spec is written; none if
/// there are none.
fn unportable(object: &MCPServer) -> Option<NewCondition> {
    let refused: Vec<&String> = object
        .spec
        .tools
        .iter()
        .filter(|tool| !PORTABLE_TOOL_NAME.admits(tool.wire_name()))
        .map(|tool| &tool.name)
        .collect();
    let message = format!(
        "common model APIs refuse names of tools with other characters than letters, digits, _ and -, or more than 64 of \
         them; set `as` on: {}",
        name_list(refused.iter().copied())
    );
    (!refused.is_empty()).then(|| NewCondition::no(ConditionType::NamesPortable, Reason::NamesRefusedByModels, message))
}

fn summary(applied: &Applied, diagnosis: Option<&Diagnosis>, policy: &NewCondition) -> Summary {
    let Applied { server, workload, enforcement, growth: _ } = applied;
    if let Some(verdict) = enforcement.rejected() {
        return Summary::Stalled(verdict.reason, verdict.message.clone());
    }
    if let Some((reason, message)) = &server.stopped {
        return Summary::Stalled(*reason, message.clone());
    }
    let wanted = number(workload, "/spec/replicas");
    let ready = number(workload, "/status/readyReplicas");
    if !is_available(workload) {
        let state = if number(workload, "/status/replicas") > number(workload, "/status/updatedReplicas") && ready > 0 {
            "what ran before goes on until new pods are ready".to_owned()
        } else {
            format!("{ready} of {wanted} pods are ready")
        };
        return match diagnosis {
            Some(Diagnosis { reason, message }) => Summary::Reconciling(*reason, format!("{state}: {message}")),
            None => Summary::Reconciling(Reason::WorkloadUnavailable, state),
        };
    }
    if policy.status != Some(true) {
        return Summary::Reconciling(policy.reason, policy.message.clone());
    }
    if wanted == 0 {
        return Summary::Ready(Reason::Suspended, "replicas is 0: calls fail".into());
    }
    if !enforcement.has_address() {
        let message = "no EndpointSlice has an address of its pods yet";
        return Summary::Reconciling(Reason::WorkloadUnavailable, message.into());
    }
    Summary::Ready(Reason::Reconciled, format!("{ready} of {wanted} pods are ready"))
}

/// Whether a server is only not ready because of its pods.
pub(super) fn waits_for_pods(Applied { server, workload, enforcement, growth: _ }: &Applied) -> bool {
    enforcement.rejected().is_none()
        && server.stopped.is_none()
        && number(workload, "/spec/replicas") > 0
        && !is_available(workload)
}

/// Returns since when a server is not ready, or since when it exists.
pub(super) fn unavailable_since(object: &MCPServer, now: Timestamp) -> Timestamp {
    let conditions = object.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    let created = || object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    match find(conditions, ConditionType::Ready) {
        Some(ready) if ready.status == "True" => now,
        Some(ready) => {
            created().map_or(ready.last_transition_time.0, |created| created.max(ready.last_transition_time.0))
        }
        None => created().unwrap_or(now),
    }
}

/// Whether a workload has been rolled out as it is written: all its pods are ready, and no earlier ones are left.
pub(super) fn is_available(workload: &Value) -> bool {
    let wanted = number(workload, "/spec/replicas");
    let updated = number(workload, "/status/updatedReplicas");
    updated >= number(workload, "/status/replicas")
        && number(workload, "/status/observedGeneration") >= number(workload, "/metadata/generation")
        && updated >= wanted
        && number(workload, "/status/readyReplicas") >= wanted
}

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use mcp_fleet_core::shared_state::verdict::{PolicyEntry, TenantState, Verdict};
    use mcp_fleet_crds::condition::is_true;
    use mcp_fleet_crds::tenant::GatewayStatus;
    use serde_json::json;

    use super::*;
    use crate::controllers::server::tests::{checked, server};

    fn workload(ready: i64) -> Value {
        json!({"metadata": {"generation": 1}, "spec": {"replicas": 1},
               "status": {"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": ready}})
    }

    fn status_with(ready: i64, verdict: &Verdict) -> MCPServerStatus {
        status_of(ready, verdict, true)
    }

    fn status_of(ready: i64, verdict: &Verdict, has_address: bool) -> MCPServerStatus {
        let state = TenantState {
            generation: 3,
            gateways: vec![GatewayStatus { pod: "gateway-1".into(), policy_generation: 3 }],
            enforced_by_all: 3,
            ..TenantState::default()
        };
        let entry = PolicyEntry { verdict: verdict.clone(), since: 3, has_address };
        let enforcement = Enforcement { state, entry: Some(entry), warming_up: false };
        let applied = Applied { server: checked(), workload: workload(ready), enforcement, growth: None };
        status(&server(), &Outcome::Applied(applied), None, "2026-11-22T12:00:00Z".parse().unwrap())
    }

    fn good() -> Verdict {
        Verdict { ok: true, reason: Reason::Reconciled, message: String::new(), object_generation: 1 }
    }

    #[test]
    fn a_server_is_ready_when_its_pods_are_and_its_policy_is_enforced() {
        let done = status_with(1, &good());
        assert!(is_true(&done.conditions, ConditionType::Ready));
        assert_eq!((done.tools, done.ready_replicas), (Some(1), Some(1)));
        assert_eq!(done.url.as_deref(), Some("https://gateway.acme-mcp.svc/files/mcp"));
        assert!(!is_true(&status_with(0, &good()).conditions, ConditionType::Ready));
    }

    #[test]
    fn tools_that_accept_any_json_are_named() {
        let mut object = server();
        assert!(find(&status_with(1, &good()).conditions, ConditionType::WideArguments).is_none());
        let any = json!({"type": "Json", "json": {"maxBytes": 9, "maxDepth": 1}});
        let named = |value: &Value| {
            let mut value = value.clone();
            value["name"] = "a".into();
            value
        };
        let list = |items: &Value| json!({"type": "Array", "array": {"maxItems": 1, "items": items}});
        let map = |values: &Value| json!({"type": "Map", "map": {"names": {"maxLength": 9}, "maxProperties": 1, "values": values}});
        let properties = |value: &Value| json!({"type": "Object", "object": {"properties": [named(value)]}});
        // A pattern that is refused: nothing is compiled for the condition.
        let narrow = json!({"name": "b", "type": "String", "string": {"maxLength": 1, "pattern": "^($"}});
        for wide_argument in
            [any.clone(), list(&any), map(&any), properties(&any), list(&map(&any)), map(&properties(&any))]
        {
            let tools = json!([
                {"name": "wide", "class": "Read", "arguments": [narrow, named(&wide_argument)]},
                {"name": "narrow", "class": "Read", "arguments": [narrow]},
            ]);
            object.spec.tools = serde_json::from_value(tools).unwrap();
            let condition = wide(&object).unwrap();
            assert_eq!((condition.status, condition.reason), (Some(true), Reason::AnyJson));
            assert!(condition.message.ends_with(": wide"), "{wide_argument}: {}", condition.message);
        }
    }

    #[test]
    fn tools_with_names_that_models_refuse_are_named() {
        let mut object = server();
        assert!(find(&status_with(1, &good()).conditions, ConditionType::NamesPortable).is_none());
        let long = "a".repeat(65);
        let tools = json!([
            {"name": "a.b", "class": "Read"}, {"name": "a/b", "class": "Read"}, {"name": "a b", "class": "Read"},
            {"name": "$a", "class": "Read"}, {"name": long, "class": "Read"}, {"name": "c d", "class": "Read"},
            {"name": "e f", "as": "e_f", "class": "Read"}, {"name": "a".repeat(64), "class": "Read"},
            {"name": "G-h_1", "class": "Read"}, {"name": &long[1..], "as": "h", "class": "Read"},
        ]);
        object.spec.tools = serde_json::from_value(tools).unwrap();
        let condition = unportable(&object).unwrap();
        assert_eq!((condition.status, condition.reason), (Some(false), Reason::NamesRefusedByModels));
        let list = format!("set `as` on: a.b, a/b, a b, $a, {long} and 1 more");
        assert!(condition.message.ends_with(&list), "{}", condition.message);
    }

    #[test]
    fn a_server_whose_pods_have_no_address_in_the_policy_is_not_ready() {
        let status = status_of(1, &good(), false);
        let ready = find(&status.conditions, ConditionType::Ready).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "WorkloadUnavailable"));
    }

    #[test]
    fn a_server_that_the_compiler_rejects_is_not_accepted() {
        let bad = Verdict { ok: false, reason: Reason::CurrencyMissing, ..good() };
        let rejected = status_with(1, &bad);
        assert_eq!(find(&rejected.conditions, ConditionType::Accepted).unwrap().reason, "CurrencyMissing");
        assert!(is_true(&rejected.conditions, ConditionType::Stalled));
    }
}
