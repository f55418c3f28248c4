//! The status of a scope. Pure.

use jiff::Timestamp;
use mcp_fleet_core::shared_state::verdict::Verdict;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPScope, MCPScopeStatus};

use crate::controllers::enforcement::Enforcement;
use crate::controllers::outcome::Outcome;
use crate::controllers::status;

/// Returns the status that follows from the outcome of a reconcile.
pub(super) fn status(object: &MCPScope, outcome: &Outcome<Enforcement>, now: Timestamp) -> MCPScopeStatus {
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = object.metadata.generation;
    let (summary, others) = match outcome.applied() {
        Ok(enforcement) => {
            let [accepted, resolved] = compiled(enforcement.verdict());
            let others = vec![accepted, resolved, enforcement.policy_current(generation)];
            (enforcement.summary(generation, "in force for the principals that hold it"), others)
        }
        Err(summary) => {
            let rejection = outcome.rejection();
            let accepted = rejection.map(|it| NewCondition::no(ConditionType::Accepted, it.reason, &it.message));
            (summary, accepted.into_iter().collect())
        }
    };
    let conditions = status::conditions(before, &summary, others, generation, now);
    MCPScopeStatus { observed_generation: generation, conditions }
}

/// Returns the conditions `Accepted` and `ResolvedRefs`: the error is either in the scope itself or in a reference.
fn compiled(verdict: Option<&Verdict>) -> [NewCondition; 2] {
    let (accepted, resolved) = (ConditionType::Accepted, ConditionType::ResolvedRefs);
    let Some(verdict) = verdict else {
        let unknown = |kind| NewCondition::unknown(kind, Reason::Progressing, "the policy is being compiled");
        return [unknown(accepted), unknown(resolved)];
    };
    let no = |kind| NewCondition::no(kind, verdict.reason, &verdict.message);
    let fine = NewCondition::yes(accepted, Reason::Reconciled, "");
    match verdict.reason {
        _ if verdict.ok => [fine, NewCondition::yes(resolved, Reason::Resolved, "")],
        Reason::ServerNotFound | Reason::ToolNotFound => [fine, no(resolved)],
        _ => [no(accepted), NewCondition::yes(resolved, Reason::Resolved, "")],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mcp_fleet_core::shared_state::verdict::{PolicyEntry, TenantState};
    use mcp_fleet_crds::condition::{find, is_true};
    use mcp_fleet_crds::tenant::GatewayStatus;

    use super::*;

    fn object() -> MCPScope {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPScope",
            "metadata": {"name": "files-read", "namespace": "acme", "uid": "s-1", "generation": 1},
            "spec": {"serverRef": {"name": "files"}, "classes": ["Read"]},
        }))
        .unwrap()
    }

    fn status_with(ok: bool, reason: Reason, acknowledged: i64) -> MCPScopeStatus {
        let gateways = vec![GatewayStatus { pod: "gateway-1".into(), policy_generation: acknowledged }];
        let state = TenantState { generation: 3, gateways, ..TenantState::default() };
        let verdict = Verdict { ok, reason, message: "because".into(), object_generation: 1 };
        let entry = PolicyEntry { verdict, since: 3, has_address: false };
        let outcome = Outcome::Applied(Enforcement { state, entry: Some(entry), warming_up: false });
        status(&object(), &outcome, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_scope_is_ready_once_a_gateway_enforces_it() {
        assert!(is_true(&status_with(true, Reason::Resolved, 3).conditions, ConditionType::Ready));
        assert!(!is_true(&status_with(true, Reason::Resolved, 2).conditions, ConditionType::Ready));
    }

    #[test]
    fn a_bad_reference_and_a_bad_rule_have_different_conditions() {
        let reference = status_with(false, Reason::ServerNotFound, 3).conditions;
        assert_eq!(find(&reference, ConditionType::ResolvedRefs).unwrap().reason, "ServerNotFound");
        assert!(is_true(&reference, ConditionType::Accepted));
        let rule = status_with(false, Reason::InvalidSpec, 3).conditions;
        assert_eq!(find(&rule, ConditionType::Accepted).unwrap().reason, "InvalidSpec");
        assert!(is_true(&rule, ConditionType::ResolvedRefs) && is_true(&rule, ConditionType::Stalled));
    }
}
