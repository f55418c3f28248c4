//! Since which generation a policy contains each object. Pure.
//!
//! An object is enforced once gateways acknowledge the first policy that contains it as it is. Later policies, which are
//! published because of other objects, change nothing about that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use mcp_fleet_core::policy::compile::TenantInputs;
use mcp_fleet_core::shared_state::PolicyEntries;
use mcp_fleet_core::shared_state::verdict::{Kind, PolicyEntry, Verdict};
use mcp_fleet_crds::condition::{ConditionType, is_true_as_of};
use mcp_fleet_policy::model::{TenantPolicy, Uid};

/// What is known of the objects before a policy is published.
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// These objects are enforced, as the previous leader wrote in their statuses.
    Enforced(BTreeSet<(Kind, Uid)>),
    /// What the previous policy contained.
    Entries {
        entries: Arc<PolicyEntries>,
        /// UIDs of objects of which the new policy contains something else, although the objects may be unchanged.
        changed: BTreeSet<Uid>,
    },
}

/// Returns what a policy of this generation contains. `addressed` are the servers that have an address in it.
pub(super) fn entries(
    verdicts: BTreeMap<(Kind, Uid), Verdict>,
    generation: u64,
    addressed: &BTreeSet<&str>,
    known: &Known,
) -> PolicyEntries {
    let since = |key: &(Kind, Uid), verdict: &Verdict| match known {
        Known::Enforced(enforced) if enforced.contains(key) => Some(0),
        Known::Entries { entries, changed } if !changed.contains(&key.1) => {
            entries.get(key).filter(|entry| entry.verdict == *verdict).map(|entry| entry.since)
        }
        _ => None,
    };
    let entry = |(key, verdict)| {
        let since = since(&key, &verdict).unwrap_or(generation);
        let has_address = addressed.contains(key.1.as_str());
        (key, PolicyEntry { verdict, since, has_address })
    };
    verdicts.into_iter().map(entry).collect()
}

/// Returns the servers that have an address in a policy.
pub(super) fn addressed(policy: &TenantPolicy) -> BTreeSet<&str> {
    policy.servers.iter().filter(|server| !server.addresses.is_empty()).map(|server| server.uid.as_str()).collect()
}

/// Returns the servers whose addresses changed, the principals whose revocation changed and the budgets that were topped up.
/// All of this can change while the generation of the object does not.
pub(super) fn changed(before: &TenantPolicy, after: &TenantPolicy) -> BTreeSet<Uid> {
    let addresses: BTreeMap<_, _> = before.servers.iter().map(|server| (&server.uid, &server.addresses)).collect();
    let revocations: BTreeMap<_, _> =
        before.principals.iter().map(|principal| (&principal.uid, principal.revoked_until)).collect();
    let servers =
        after.servers.iter().filter(|it| addresses.get(&it.uid).is_some_and(|before| **before != it.addresses));
    let principals =
        after.principals.iter().filter(|it| revocations.get(&it.uid).is_some_and(|until| *until != it.revoked_until));
    let top_ups: BTreeMap<_, _> = before.budgets.iter().map(|budget| (&budget.uid, budget.top_up)).collect();
    let budgets = after.budgets.iter().filter(|it| top_ups.get(&it.uid).is_some_and(|top_up| *top_up != it.top_up));
    let uids = servers.map(|server| &server.uid).chain(principals.map(|principal| &principal.uid));
    uids.chain(budgets.map(|budget| &budget.uid)).cloned().collect()
}

/// Returns the objects that all gateways enforce as they are written, according to their statuses.
pub(super) fn enforced(inputs: &TenantInputs) -> BTreeSet<(Kind, Uid)> {
    let mut enforced = BTreeSet::new();
    let mut add = |kind, meta: &ObjectMeta, conditions: Option<&Vec<Condition>>| {
        let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
        if is_true_as_of(conditions, ConditionType::PolicyCurrent, meta.generation) {
            enforced.extend(meta.uid.clone().map(|uid| (kind, uid)));
        }
    };
    macro_rules! add {
        ($kind:expr, $objects:expr) => {
            for object in $objects {
                add($kind, &object.metadata, object.status.as_ref().map(|status| &status.conditions));
            }
        };
    }
    add!(Kind::Tenant, [&inputs.tenant]);
    add!(Kind::Server, &inputs.servers);
    add!(Kind::Scope, &inputs.scopes);
    add!(Kind::Principal, &inputs.principals);
    add!(Kind::Budget, &inputs.budgets);
    enforced
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mcp_fleet_crds::condition::ConditionReason;

    use super::*;

    fn verdicts(all: &[(&str, i64)]) -> BTreeMap<(Kind, Uid), Verdict> {
        let verdict = |object_generation| Verdict {
            ok: true,
            reason: ConditionReason::Resolved,
            message: String::new(),
            object_generation,
        };
        all.iter().map(|(uid, generation)| ((Kind::Scope, (*uid).to_owned()), verdict(*generation))).collect()
    }

    fn since(entries: &PolicyEntries) -> Vec<(&str, u64)> {
        entries.iter().map(|((_, uid), entry)| (uid.as_str(), entry.since)).collect()
    }

    #[test]
    fn only_changed_objects_are_contained_since_the_newest_generation() {
        let addressed = ["c"].into();
        let first = entries(verdicts(&[("a", 1), ("b", 1), ("c", 1)]), 4, &addressed, &Known::Nothing);
        let known = Known::Entries { entries: Arc::new(first), changed: [Uid::from("c")].into() };
        let second = entries(verdicts(&[("a", 1), ("b", 2), ("c", 1), ("d", 1)]), 5, &addressed, &known);
        assert_eq!(since(&second), [("a", 4), ("b", 5), ("c", 5), ("d", 5)]);
    }

    #[test]
    fn a_budget_that_is_topped_up_has_changed() {
        let before = mcp_fleet_core::testing::policy(vec![mcp_fleet_core::testing::budget(5)]);
        let mut after = before.clone();
        assert!(changed(&before, &after).is_empty());
        after.budgets[0].top_up = Some(mcp_fleet_policy::model::TopUp::default());
        assert_eq!(changed(&before, &after), ["b-1".to_owned()].into());
    }

    #[test]
    fn a_new_leader_keeps_what_statuses_say_is_enforced() {
        let known = Known::Enforced([(Kind::Scope, Uid::from("a"))].into());
        assert_eq!(since(&entries(verdicts(&[("a", 1), ("b", 1)]), 7, &BTreeSet::new(), &known)), [("a", 0), ("b", 7)]);
    }
}
