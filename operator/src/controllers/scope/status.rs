//! What is said about a scope. Pure.

use jiff::Timestamp;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::{MCPScope, MCPScopeStatus};

use crate::controllers::status::{self, Summary};
use crate::shared_state::verdict::{TenantState, Verdict};

/// What is known of a scope.
#[derive(Clone, Debug)]
pub(super) enum Facts<'a> {
    /// No tenant claims its namespace.
    Unclaimed,
    /// A tenant does.
    Claimed {
        /// How far the tenant's policy is enforced.
        state: &'a TenantState,
        /// What the compiler made of the scope.
        verdict: Option<&'a Verdict>,
    },
}

/// The status that follows from it.
pub(super) fn status(object: &MCPScope, facts: &Facts<'_>, now: Timestamp) -> MCPScopeStatus {
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = object.metadata.generation;
    let (summary, others) = match facts {
        Facts::Unclaimed => {
            let reason = Reason::NamespaceUnclaimed;
            let message = "no MCPTenant claims this namespace: the scope grants nothing; ask the platform team";
            let accepted = NewCondition::no(ConditionType::Accepted, reason, message);
            (Summary::Stuck(reason, message.into()), vec![accepted])
        }
        Facts::Claimed { state, verdict } => {
            let [accepted, resolved] = judged(*verdict);
            let policy = status::policy_current(state, *verdict, generation);
            (
                status::in_force(state, *verdict, generation, "in force for the principals that hold it"),
                vec![accepted, resolved, policy],
            )
        }
    };
    let conditions = status::conditions(before, &summary, others, generation, now);
    MCPScopeStatus { observed_generation: generation, conditions }
}

/// Accepted and `ResolvedRefs`: a scope is either wrong in itself, or in what it refers to.
fn judged(verdict: Option<&Verdict>) -> [NewCondition; 2] {
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

    fn judge(ok: bool, reason: Reason, acknowledged: i64) -> MCPScopeStatus {
        let gateways = vec![GatewayStatus { pod: "gateway-1".into(), policy_generation: acknowledged }];
        let state = TenantState { generation: 3, gateways, ..TenantState::default() };
        let verdict = Verdict { ok, reason, message: "because".into(), object_generation: 1 };
        let facts = Facts::Claimed { state: &state, verdict: Some(&verdict) };
        status(&object(), &facts, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_scope_is_ready_once_a_gateway_enforces_it() {
        assert!(is_true(&judge(true, Reason::Resolved, 3).conditions, ConditionType::Ready));
        assert!(!is_true(&judge(true, Reason::Resolved, 2).conditions, ConditionType::Ready));
    }

    #[test]
    fn a_bad_reference_and_a_bad_rule_are_told_apart() {
        let reference = judge(false, Reason::ServerNotFound, 3).conditions;
        assert_eq!(find(&reference, ConditionType::ResolvedRefs).unwrap().reason, "ServerNotFound");
        assert!(is_true(&reference, ConditionType::Accepted));
        let rule = judge(false, Reason::InvalidSpec, 3).conditions;
        assert_eq!(find(&rule, ConditionType::Accepted).unwrap().reason, "InvalidSpec");
        assert!(is_true(&rule, ConditionType::ResolvedRefs) && is_true(&rule, ConditionType::Stalled));
    }
}
