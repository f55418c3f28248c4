//! Compiles principals: their grants, limits and revocations.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::names::CLEAR_BREAKERS;
use mcp_fleet_policy::model::{Grant, Principal, PrincipalLimits};

use super::scope::ScopeGrants;
use super::{Compilation, Rejection, is_alive, name_list, uid, unreadable};
use crate::shared_state::verdict::Kind;

/// Effect of `revokeIssuedBefore`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Revocation {
    /// Tokens with `iat` at or before this Unix second are refused.
    pub revoked_until: Option<i64>,
    /// Unix second at which a revocation in the future applies.
    pub due_at: Option<i64>,
}

/// Returns the revocation of a principal. It never moves back: `in_force` is the latest that was ever in force.
pub(super) fn revocation(principal: &MCPPrincipal, in_force: Option<i64>, now: i64) -> Revocation {
    let Some(wanted) = &principal.spec.revoke_issued_before else {
        return Revocation { revoked_until: in_force, due_at: None };
    };
    // `iat` has whole seconds: a token of the same second may be older than the given time, so it is refused too.
    let wanted = wanted.0.as_second();
    if wanted > now {
        return Revocation { revoked_until: in_force, due_at: Some(wanted) };
    }
    Revocation { revoked_until: in_force.max(Some(wanted)), due_at: None }
}

/// Compiles the principals, sorted by namespace and name. Also returns when the next revocation becomes due.
pub(super) fn compile(compilation: &mut Compilation<'_>, scopes: &ScopeGrants) -> (Vec<Principal>, Option<i64>) {
    let mut objects: Vec<Arc<MCPPrincipal>> =
        compilation.inputs.principals.iter().filter(|principal| is_alive(&***principal)).cloned().collect();
    objects.sort_by_key(|principal| (principal.namespace(), principal.name_any()));
    let (mut principals, mut recheck_at) = unreadable::principals(compilation, scopes);
    for object in objects {
        let principal_uid = uid(&*object);
        let previous = compilation.before.principals.get(principal_uid.as_str()).copied();
        let recorded = compilation.inputs.revocations.get(&principal_uid).copied();
        let in_force = previous.and_then(|previous| previous.revoked_until).max(recorded);
        let revocation = revocation(&object, in_force, compilation.inputs.now);
        recheck_at = [recheck_at, revocation.due_at].into_iter().flatten().min();
        let refusal = compilation.refusal(Kind::Principal, &*object);
        if refusal.is_some() && previous.is_none() {
            compilation.set_verdict(Kind::Principal, &*object, refusal);
            continue;
        }
        let (mut grants, problem) = grants_of(&object, scopes, previous);
        if refusal.is_some() {
            grants.retain(|grant| holds(previous, &grant.scope));
        }
        let limits = match (&problem, previous) {
            (Some(ScopeProblem::Missing(_)), Some(previous)) => previous.limits,
            _ => limits(&object),
        };
        principals.push(Principal {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: principal_uid,
            suspended: object.spec.suspend,
            revoked_until: revocation.revoked_until,
            breakers_cleared: breakers_cleared(&object),
            grants,
            limits,
        });
        let rejection = refusal.or_else(|| problem.map(ScopeProblem::rejection));
        compilation.set_verdict(Kind::Principal, &*object, rejection);
    }
    principals.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    (principals, recheck_at)
}

/// Returns the time in the annotation with which a person clears the principal's breakers and reports. Another value of it
/// clears nothing: it is not worth holding back what else changes.
pub(super) fn breakers_cleared(object: &MCPPrincipal) -> Option<i64> {
    let at: Timestamp = object.annotations().get(CLEAR_BREAKERS)?.parse().ok()?;
    Some(at.as_second())
}

/// Problem with the scopes that a principal refers to.
enum ScopeProblem {
    /// These scopes do not exist.
    Missing(BTreeSet<String>),
    /// These scopes exist, but nothing of them is in force.
    NotInForce(BTreeSet<String>),
}

impl ScopeProblem {
    fn rejection(self) -> Rejection {
        let message = match self {
            Self::Missing(names) => format!(
                "scopeRefs: {} does not exist in this namespace; create the MCPScope or remove the reference. Until then, the principal gains no further grants",
                name_list(&names)
            ),
            Self::NotInForce(names) => {
                format!("scopeRefs: {} is not in force; see the conditions of the MCPScope", name_list(&names))
            }
        };
        Rejection::new(ConditionReason::ScopeNotFound, message)
    }
}

/// Returns the grants of a principal. While one of its scopes does not exist, it holds only those of its scopes that it
/// held before: none, if it is new.
fn grants_of(
    object: &MCPPrincipal,
    scopes: &ScopeGrants,
    previous: Option<&Principal>,
) -> (Vec<Arc<Grant>>, Option<ScopeProblem>) {
    let names: BTreeSet<&String> = object.spec.scope_refs.iter().map(|reference| &reference.name).collect();
    let missing: BTreeSet<String> = names.iter().copied().filter(|&name| !scopes.contains_key(name)).cloned().collect();
    let not_in_force: BTreeSet<String> =
        names.iter().copied().filter(|&name| matches!(scopes.get(name), Some(None))).cloned().collect();
    let grants = names
        .iter()
        .filter_map(|&name| scopes.get(name).cloned().flatten())
        .filter(|grant| missing.is_empty() || holds(previous, &grant.scope))
        .collect();
    let problem = if !missing.is_empty() {
        Some(ScopeProblem::Missing(missing))
    } else if !not_in_force.is_empty() {
        Some(ScopeProblem::NotInForce(not_in_force))
    } else {
        None
    };
    (grants, problem)
}

/// Returns whether a principal held a scope before.
fn holds(previous: Option<&Principal>, scope: &str) -> bool {
    previous.is_some_and(|previous| previous.grants.iter().any(|grant| grant.scope == scope))
}

fn limits(object: &MCPPrincipal) -> PrincipalLimits {
    let limits = &object.spec.limits;
    PrincipalLimits {
        calls_per_minute: limits.calls_per_minute,
        burst: limits.burst,
        max_concurrent_calls: limits.max_concurrent_calls,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::CLEAR_BREAKERS;
    use crate::policy::compile::tests::{coder, compile, inputs};

    #[test]
    fn the_time_of_the_annotation_is_part_of_the_policy_and_another_value_is_ignored() {
        let mut inputs = inputs();
        assert_eq!(coder(&compile(&inputs, None)).breakers_cleared, None);
        for (value, expected) in
            [("2026-11-22T12:00:00Z", Some(1_795_348_800)), ("now", None), ("", None), ("2026-11-22", None)]
        {
            let principal = Arc::make_mut(&mut inputs.principals[0]);
            principal.metadata.annotations = Some([(CLEAR_BREAKERS.to_owned(), value.to_owned())].into());
            let compiled = compile(&inputs, None);
            assert_eq!(coder(&compiled).breakers_cleared, expected, "{value}");
            assert!(compiled.verdicts.values().all(|verdict| verdict.ok));
        }
    }
}
