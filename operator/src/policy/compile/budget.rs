//! Compiles budgets: resolves the objects that they select to UIDs.
//!
//! A budget restricts, it does not permit. So a new budget that refers to missing objects still applies to those that
//! exist. Their number is limited, because each has a book in the ledger; the oldest are in force.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_crds::MCPBudget;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::reference::Reference;
use mcp_fleet_policy::model::{Budget, Principal, Selector, Server, Uid};

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
            .and_then(|previous| previous.policy.budgets.iter().find(|budget| budget.uid == budget_uid))
            .filter(|_| rejection.is_some());
        budgets.push(previous.cloned().unwrap_or(compiled));
        compilation.set_verdict(Kind::Budget, &*object, rejection);
    }
    budgets.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    budgets
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
