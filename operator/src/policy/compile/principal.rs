//! Principals: what each may call, and whether its tokens are still good.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_policy::model::{Grant, Principal, PrincipalLimits};

use super::scope::Grants;
use super::{Context, Problem, alive, list, uid};
use crate::shared_state::verdict::Kind;

/// What `revokeIssuedBefore` comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Revocation {
    /// Tokens with `iat` at or before this Unix second are refused.
    pub until: Option<i64>,
    /// It lies in the future, and is applied when this Unix second has come.
    pub due: Option<i64>,
}

/// The revocation of a principal: latched, so never earlier than what was in force before.
pub(super) fn revocation(principal: &MCPPrincipal, latched: Option<i64>, now: i64) -> Revocation {
    let Some(wanted) = &principal.spec.revoke_issued_before else { return Revocation { until: latched, due: None } };
    // `iat` has whole seconds: a token of the same second may be older than the time that is written, and is refused.
    let wanted = wanted.0.as_second();
    if wanted > now {
        return Revocation { until: latched, due: Some(wanted) };
    }
    Revocation { until: latched.max(Some(wanted)), due: None }
}

/// The principals, by namespace and name; and when a revocation becomes due.
pub(super) fn compile(context: &mut Context<'_>, grants: &Grants) -> (Vec<Principal>, Option<i64>) {
    let mut sources: Vec<Arc<MCPPrincipal>> =
        context.inputs.principals.iter().filter(|principal| alive(&***principal)).cloned().collect();
    sources.sort_by_key(|principal| (principal.namespace(), principal.name_any()));
    let mut principals = Vec::new();
    let mut due = None;
    for source in sources {
        let principal_uid = uid(&*source);
        let before = context
            .previous
            .and_then(|previous| previous.policy.principals.iter().find(|principal| principal.uid == principal_uid));
        let latched = before.and_then(|before| before.revoked_until);
        let latched = latched.max(context.inputs.revocations.get(&principal_uid).copied());
        let revocation = revocation(&source, latched, context.inputs.now);
        due = [due, revocation.due].into_iter().flatten().min();
        let (held, problem) = held(&source, grants, before);
        let limits = match (&problem, before) {
            (Some(Trouble::Unknown(_)), Some(before)) => before.limits,
            _ => limits(&source),
        };
        principals.push(Principal {
            namespace: source.namespace().unwrap_or_default(),
            name: source.name_any(),
            uid: principal_uid,
            suspended: source.spec.suspend,
            revoked_until: revocation.until,
            grants: held,
            limits,
        });
        context.judge(Kind::Principal, &*source, problem.map(Trouble::problem));
    }
    (principals, due)
}

/// What can be wrong with a principal.
enum Trouble {
    /// It names scopes that do not exist.
    Unknown(BTreeSet<String>),
    /// It names scopes of which nothing is in force.
    Broken(BTreeSet<String>),
}

impl Trouble {
    fn problem(self) -> Problem {
        let message = match self {
            Self::Unknown(names) => format!(
                "scopeRefs: {} does not exist in this namespace; create the MCPScope or remove the reference. Until then nothing is added to what was granted before",
                list(&names)
            ),
            Self::Broken(names) => {
                format!("scopeRefs: {} is not in force: see the conditions of the MCPScope", list(&names))
            }
        };
        Problem::new(ConditionReason::ScopeNotFound, message)
    }
}

/// The grants of a principal. While it names a scope that does not exist, it holds of its scopes only those it held
/// before: none, if it is new.
fn held(source: &MCPPrincipal, grants: &Grants, before: Option<&Principal>) -> (Vec<Grant>, Option<Trouble>) {
    let names: BTreeSet<&String> = source.spec.scope_refs.iter().map(|reference| &reference.name).collect();
    let missing: BTreeSet<String> = names.iter().copied().filter(|&name| !grants.contains_key(name)).cloned().collect();
    let broken: BTreeSet<String> =
        names.iter().copied().filter(|&name| matches!(grants.get(name), Some(None))).cloned().collect();
    let held_before = |name: &str| before.is_some_and(|before| before.grants.iter().any(|grant| grant.scope == name));
    let held = names
        .iter()
        .filter_map(|&name| grants.get(name).cloned().flatten())
        .filter(|grant| missing.is_empty() || held_before(&grant.scope))
        .collect();
    let trouble = if !missing.is_empty() {
        Some(Trouble::Unknown(missing))
    } else if !broken.is_empty() {
        Some(Trouble::Broken(broken))
    } else {
        None
    };
    (held, trouble)
}

fn limits(source: &MCPPrincipal) -> PrincipalLimits {
    let limits = &source.spec.limits;
    PrincipalLimits {
        calls_per_minute: limits.calls_per_minute,
        burst: limits.burst,
        max_concurrent_calls: limits.max_concurrent_calls,
    }
}
