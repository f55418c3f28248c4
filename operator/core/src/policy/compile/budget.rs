//! Compiles budgets: resolves the objects that they select to UIDs.
//!
//! A budget restricts, it does not permit. So a new budget that refers to missing objects still applies to those that
//! exist. Their number is limited, because each has a book in the ledger; the oldest are in force.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::names::TOP_UP;
use mcp_fleet_crds::reference::Reference;
use mcp_fleet_crds::{MCPBudget, top_up};
use mcp_fleet_policy::model::{Budget, Principal, Selector, Server, TopUp, Uid};

use super::{Compilation, Rejection, name_list, uid, unreadable};
use crate::shared_state::verdict::Kind;

/// Maximum number of budgets of a tenant, besides its spend limit. A call is charged to every budget that covers it, and
/// each has a book that is written while calls are made.
const MAX_BUDGETS: usize = 256;

/// Compiles the budgets, sorted by name. A budget that is being deleted applies until it is gone.
pub(super) fn compile(
    compilation: &mut Compilation<'_>,
    servers: &[Server],
    principals: &[Principal],
    has_currency: bool,
) -> Vec<Budget> {
    let mut objects: Vec<Arc<MCPBudget>> = compilation.inputs.budgets.clone();
    objects.sort_by_key(|budget| (budget.name_any(), uid(&**budget)));
    let mut budgets = unreadable::budgets(compilation);
    let in_limit = in_limit(compilation, &objects, MAX_BUDGETS.saturating_sub(budgets.len()));
    for object in objects {
        let budget_uid = uid(&*object);
        if !in_limit.contains(&budget_uid) {
            let message = format!(
                "the tenant has {MAX_BUDGETS} older budgets, which is the maximum, so this one limits nothing; delete one of \
                 them or combine several"
            );
            let rejection = Rejection::new(ConditionReason::TooManyBudgets, message);
            compilation.set_verdict(Kind::Budget, &*object, Some(rejection));
            continue;
        }
        let (compiled, rejection) = from_spec(&object, servers, principals, has_currency);
        let previous = compilation
            .previous
            .and_then(|previous| previous.policy.budgets.iter().find(|budget| budget.uid == budget_uid));
        let in_force = previous.filter(|_| rejection.is_some()).cloned().unwrap_or(compiled);
        budgets.push(Budget { top_up: top_up(&object, previous), ..in_force });
        compilation.set_verdict(Kind::Budget, &*object, rejection);
    }
    budgets.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    budgets
}

/// Returns what a person added to a budget with an annotation. A value that is not valid changes nothing.
fn top_up(object: &MCPBudget, previous: Option<&Budget>) -> Option<TopUp> {
    let value = object.annotations().get(TOP_UP)?;
    top_up::parse(value, &object.spec).ok().or_else(|| previous?.top_up)
}

/// Returns the UIDs of the budgets that are within the limit: those that were in force before, then the oldest. Kubernetes
/// gives creation times in seconds, so age alone could displace a budget that is in force.
fn in_limit(compilation: &Compilation<'_>, objects: &[Arc<MCPBudget>], limit: usize) -> BTreeSet<Uid> {
    let before: BTreeSet<&Uid> = compilation
        .previous
        .iter()
        .flat_map(|previous| previous.policy.budgets.iter().map(|budget| &budget.uid))
        .collect();
    let mut ranked: Vec<(bool, Option<Timestamp>, Uid)> = objects
        .iter()
        .map(|object| {
            let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!before.contains(&uid(&**object)), created, uid(&**object))
        })
        .collect();
    ranked.sort();
    ranked.into_iter().take(limit).map(|(_, _, uid)| uid).collect()
}

/// Compiles one budget as it is written, without the references that do not exist.
fn from_spec(
    object: &MCPBudget,
    servers: &[Server],
    principals: &[Principal],
    has_currency: bool,
) -> (Budget, Option<Rejection>) {
    let selector = &object.spec.selector;
    let principal = |name: &str| principals.iter().find(|principal| principal.name == name).map(|found| &found.uid);
    let server = |name: &str| servers.iter().find(|server| server.name == name).map(|found| &found.uid);
    let (principal_uids, missing_principals) = resolve(selector.principal_refs.as_deref(), principal);
    let (server_uids, missing_servers) = resolve(selector.server_refs.as_deref(), server);
    let budget = Budget {
        name: object.name_any(),
        uid: uid(object),
        selector: Selector {
            principals: principal_uids,
            servers: server_uids,
            classes: selector.classes.as_ref().map(|classes| {
                let mut classes = classes.clone();
                classes.sort_unstable();
                classes.dedup();
                classes
            }),
        },
        period: object.spec.period,
        amount: object.spec.amount,
        calls: object.spec.calls,
        mode: object.spec.mode,
        top_up: None,
    };
    let rejection = if !missing_principals.is_empty() {
        Some(target_not_found(&format!("selector.principalRefs: {}", name_list(&missing_principals)), "MCPPrincipal"))
    } else if !missing_servers.is_empty() {
        Some(target_not_found(&format!("selector.serverRefs: {}", name_list(&missing_servers)), "MCPServer"))
    } else if object.spec.amount.is_some() && !has_currency {
        Some(Rejection::new(
            ConditionReason::CurrencyMissing,
            "amount is set, but the tenant has no spendLimit, which sets the currency; ask the platform team for one or use calls",
        ))
    } else {
        None
    };
    (budget, rejection)
}

fn target_not_found(what: &str, kind: &str) -> Rejection {
    let message = format!("{what} does not exist in this namespace; correct the name or create the {kind}");
    Rejection::new(ConditionReason::TargetNotFound, message)
}

/// Resolves references to sorted UIDs, and returns the names that do not exist. None without references.
fn resolve<'a>(
    references: Option<&[Reference]>,
    find: impl Fn(&str) -> Option<&'a Uid>,
) -> (Option<Vec<Uid>>, BTreeSet<String>) {
    let Some(references) = references else { return (None, BTreeSet::new()) };
    let mut uids = Vec::new();
    let mut missing = BTreeSet::new();
    for reference in references {
        match find(&reference.name) {
            Some(found) => uids.push(found.clone()),
            None => {
                missing.insert(reference.name.clone());
            }
        }
    }
    uids.sort_unstable();
    uids.dedup();
    (Some(uids), missing)
}

#[cfg(test)]
mod tests {
    use mcp_fleet_policy::units::Micros;

    use super::super::tests::{inputs, published};
    use super::super::{Limit, Previous, TenantInputs, compile};
    use super::*;

    fn annotated(value: Option<&str>) -> TenantInputs {
        let mut inputs = inputs();
        let budget = Arc::make_mut(&mut inputs.budgets[0]);
        budget.metadata.annotations = value.map(|value| [(TOP_UP.to_owned(), value.to_owned())].into());
        inputs
    }

    fn top_ups(inputs: &TenantInputs, previous: Option<&Previous>) -> Vec<Option<TopUp>> {
        compile(inputs, previous, Limit::DEFAULT).policy.budgets.iter().map(|budget| budget.top_up).collect()
    }

    #[test]
    fn the_annotation_tops_up_its_budget_and_never_the_spend_limit() {
        let day = 1_795_651_200; // 2026-11-26T00:00:00Z
        let added = TopUp { start: day, amount: Micros::new(2_000_000), calls: 0 };
        let mut inputs = annotated(Some("2026-11-26T09:30:00Z amount=2"));
        Arc::make_mut(&mut inputs.tenant).metadata.annotations = inputs.budgets[0].metadata.annotations.clone();
        assert_eq!(top_ups(&inputs, None), [None, Some(added)]);
        let before = published(&compile(&inputs, None, Limit::DEFAULT));
        // A value that is not valid changes nothing; without the annotation, the top-up is taken back.
        assert_eq!(top_ups(&annotated(Some("more")), Some(&before)), [None, Some(added)]);
        assert_eq!(top_ups(&annotated(Some("more")), None), [None, None]);
        assert_eq!(top_ups(&annotated(Some("2026-11-26T09:30:00Z calls=9")), None), [None, None]);
        assert_eq!(top_ups(&annotated(None), Some(&before)), [None, None]);
    }

    #[test]
    fn a_budget_that_stays_as_it_was_is_topped_up_nevertheless() {
        let before = published(&compile(&inputs(), None, Limit::DEFAULT));
        let mut inputs = annotated(Some("2026-11-26T09:30:00Z amount=2"));
        inputs.principals.clear();
        let compiled = compile(&inputs, Some(&before), Limit::DEFAULT);
        assert!(compiled.policy.budgets[1].selector == before.policy.budgets[1].selector);
        assert!(compiled.policy.budgets[1].top_up.is_some());
    }
}
