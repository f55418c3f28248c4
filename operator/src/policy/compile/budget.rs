//! Budgets: what they cover, by UID.
//!
//! A budget takes away, it does not give. So a new one that names something unknown still holds for what it names
//! and what exists.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::MCPBudget;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::reference::Reference;
use mcp_fleet_policy::model::{Budget, Principal, Selector, Server, Uid};

use super::{Context, Problem, list, uid};
use crate::shared_state::verdict::Kind;

/// The budgets, by name. One that is being deleted holds until it is gone.
pub(super) fn compile(
    context: &mut Context<'_>,
    servers: &[Server],
    principals: &[Principal],
    has_currency: bool,
) -> Vec<Budget> {
    let mut sources: Vec<Arc<MCPBudget>> = context.inputs.budgets.clone();
    sources.sort_by_key(|budget| (budget.name_any(), uid(&**budget)));
    let mut budgets = Vec::new();
    for source in sources {
        let budget_uid = uid(&*source);
        let (written, problem) = written(&source, servers, principals, has_currency);
        let before = context
            .previous
            .and_then(|previous| previous.policy.budgets.iter().find(|budget| budget.uid == budget_uid))
            .filter(|_| problem.is_some());
        budgets.push(before.cloned().unwrap_or(written));
        context.judge(Kind::Budget, &*source, problem);
    }
    budgets
}

/// The budget as the object says, for what exists of what it names.
fn written(
    source: &MCPBudget,
    servers: &[Server],
    principals: &[Principal],
    has_currency: bool,
) -> (Budget, Option<Problem>) {
    let selector = &source.spec.selector;
    let principal = |name: &str| principals.iter().find(|principal| principal.name == name).map(|found| &found.uid);
    let server = |name: &str| servers.iter().find(|server| server.name == name).map(|found| &found.uid);
    let (principal_uids, no_principals) = resolve(selector.principal_refs.as_deref(), principal);
    let (server_uids, no_servers) = resolve(selector.server_refs.as_deref(), server);
    let budget = Budget {
        name: source.name_any(),
        uid: uid(source),
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
        period: source.spec.period,
        amount: source.spec.amount,
        calls: source.spec.calls,
    };
    let problem = if !no_principals.is_empty() {
        Some(target(&format!("selector.principalRefs: {}", list(&no_principals)), "MCPPrincipal"))
    } else if !no_servers.is_empty() {
        Some(target(&format!("selector.serverRefs: {}", list(&no_servers)), "MCPServer"))
    } else if source.spec.amount.is_some() && !has_currency {
        Some(Problem::new(
            ConditionReason::CurrencyMissing,
            "amount is set, but the tenant has no spendLimit, which sets the currency; ask the platform team for one or use calls",
        ))
    } else {
        None
    };
    (budget, problem)
}

fn target(what: &str, kind: &str) -> Problem {
    let message = format!("{what} does not exist in this namespace; correct the name or create the {kind}");
    Problem::new(ConditionReason::TargetNotFound, message)
}

/// The UIDs of what references name, and the names of what does not exist.
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
