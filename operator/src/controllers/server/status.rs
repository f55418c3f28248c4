//! Step five: what is said about a server.

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPServer, MCPServerStatus};
use serde_json::Value;

use super::validate::{Refusal, Server};
use crate::config::gateway_origin;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::status::{self, Summary};
use crate::shared_state::verdict::{TenantState, Verdict};

/// What the reconcile came to.
#[derive(Clone, Debug)]
pub(crate) enum Judged<'a> {
    /// It may run, and everything was applied.
    Applied {
        /// The server.
        server: &'a Server,
        /// Its live workload.
        workload: &'a Value,
        /// How far the tenant's policy is enforced.
        state: &'a TenantState,
        /// What the compiler made of the server.
        verdict: Option<&'a Verdict>,
    },
    /// It may not run as it is written.
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
pub(crate) fn status(object: &MCPServer, judged: &Judged<'_>, now: Timestamp) -> MCPServerStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let accepted = |verdict: Option<&Verdict>| match verdict.filter(|verdict| !verdict.ok) {
        Some(verdict) => NewCondition::no(ConditionType::Accepted, verdict.reason, &verdict.message),
        None => NewCondition::yes(ConditionType::Accepted, Reason::Reconciled, ""),
    };
    let (summary, others) = match judged {
        Judged::Applied { workload, state, verdict, .. } => {
            let policy = status::policy_current(state, *verdict, generation);
            (summary(workload, state, *verdict, &policy), vec![accepted(*verdict), policy])
        }
        Judged::Refused(refusal) => {
            let no = NewCondition::no(ConditionType::Accepted, refusal.reason, &refusal.message);
            let summary = if refusal.waiting { Summary::Working } else { Summary::Stuck };
            (summary(refusal.reason, refusal.message.clone()), vec![no])
        }
        Judged::Failed { message, stuck: true } => (Summary::Stuck(Reason::Failed, message.clone()), vec![]),
        Judged::Failed { message, stuck: false } => (Summary::Working(Reason::Failed, message.clone()), vec![]),
        Judged::Leaving(step) => (Summary::Working(Reason::Terminating, (*step).to_owned()), vec![]),
    };
    let conditions = status::conditions(&before.conditions, &summary, others, generation, now);
    let mut next = MCPServerStatus { observed_generation: generation, conditions, ..before };
    if let Judged::Applied { server, workload, verdict, .. } = judged {
        next.url = Some(format!("{}/{}/mcp", gateway_origin(&server.runtime_namespace), object.name_any()));
        next.ready_replicas = i32::try_from(number(workload, "/status/readyReplicas")).ok();
        if verdict.is_some_and(|verdict| verdict.ok && Some(verdict.object_generation) >= generation) {
            next.tools = i32::try_from(object.spec.tools.len()).ok();
        }
    }
    next
}

fn summary(workload: &Value, state: &TenantState, verdict: Option<&Verdict>, policy: &NewCondition) -> Summary {
    if let Some(verdict) = verdict.filter(|verdict| !verdict.ok) {
        return Summary::Stuck(verdict.reason, verdict.message.clone());
    }
    let wanted = number(workload, "/spec/replicas");
    let observed = number(workload, "/status/observedGeneration") >= number(workload, "/metadata/generation");
    let updated = number(workload, "/status/updatedReplicas");
    let ready = number(workload, "/status/readyReplicas");
    if !observed || updated < wanted || ready < wanted {
        let message = format!("{ready} of {wanted} pods are ready");
        return Summary::Working(Reason::WorkloadUnavailable, message);
    }
    if state.current() == 0 || policy.status != Some(true) {
        return Summary::Working(policy.reason, policy.message.clone());
    }
    if wanted == 0 {
        return Summary::Ready(Reason::Suspended, "replicas is 0: calls fail".into());
    }
    Summary::Ready(Reason::Reconciled, format!("{ready} of {wanted} pods are ready"))
}

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Writes it, if it is another than before.
pub(crate) async fn write(ctx: &Context, object: &MCPServer, judged: &Judged<'_>) -> Result<(), ReconcileError> {
    let api = status::namespaced::<MCPServer>(&ctx.client, &object.namespace().unwrap_or_default());
    status::publish(ctx, &api, object, status(object, judged, Timestamp::now())).await
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::condition::{find, is_true};
    use mcp_fleet_crds::tenant::GatewayStatus;
    use serde_json::json;

    use super::*;
    use crate::controllers::server::tests::{checked, server};

    fn workload(ready: i64) -> Value {
        json!({"metadata": {"generation": 1}, "spec": {"replicas": 1},
               "status": {"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": ready}})
    }

    fn judge(ready: i64, verdict: &Verdict) -> MCPServerStatus {
        let state = TenantState {
            generation: 3,
            gateways: vec![GatewayStatus { pod: "gateway-1".into(), policy_generation: 3 }],
            ..TenantState::default()
        };
        let (checked, workload) = (checked(), workload(ready));
        let judged = Judged::Applied { server: &checked, workload: &workload, state: &state, verdict: Some(verdict) };
        status(&server(), &judged, "2026-11-22T12:00:00Z".parse().unwrap())
    }

    fn good() -> Verdict {
        Verdict { ok: true, reason: Reason::Reconciled, message: String::new(), object_generation: 1 }
    }

    #[test]
    fn a_server_is_ready_when_its_pods_are_and_its_policy_is_enforced() {
        let done = judge(1, &good());
        assert!(is_true(&done.conditions, ConditionType::Ready));
        assert_eq!((done.tools, done.ready_replicas), (Some(1), Some(1)));
        assert_eq!(done.url.as_deref(), Some("https://gateway.acme-mcp.svc/files/mcp"));
        assert!(!is_true(&judge(0, &good()).conditions, ConditionType::Ready));
    }

    #[test]
    fn what_the_compiler_refuses_is_not_accepted() {
        let bad = Verdict { ok: false, reason: Reason::CurrencyMissing, ..good() };
        let refused = judge(1, &bad);
        assert_eq!(find(&refused.conditions, ConditionType::Accepted).unwrap().reason, "CurrencyMissing");
        assert!(is_true(&refused.conditions, ConditionType::Stalled));
    }
}
