//! `MCPBudget`: what its status says, and where all budgets stand.
//!
//! The ledger is the truth; status is a summary of it that is written every few seconds at most.

mod figure;
mod metrics;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPBudget;

pub(crate) use metrics::SpendMetrics;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::error::ReconcileError;
use crate::controllers::status as written;
use crate::kubernetes::cache::{Cache, Change, in_namespace, only, with_uid};
use crate::ledger::period::Span;
use crate::shared_state::StateChange;
use crate::shared_state::verdict::Kind;
use status::Facts;

/// How often the ledger is summed up. It costs no I/O; status is written only where a figure changed.
const SUMMARY_EVERY: Duration = Duration::from_secs(5);
/// How often new budgets are looked for: they are summed up at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Reconciles budgets: their status is all there is to do.
#[derive(Debug)]
pub(crate) struct Budgets;

impl Controller for Budgets {
    type Kind = MCPBudget;
    const NAME: &'static str = "budget";

    fn store(cache: &Cache) -> Store<MCPBudget> {
        cache.budgets.clone()
    }

    fn concerned(cache: &Cache, change: &Change) -> Vec<ObjectRef<MCPBudget>> {
        match change {
            Change::Budget(namespace, name) => vec![ObjectRef::new(name).within(namespace)],
            Change::Tenant(name) => cache.of_tenant_named(&cache.budgets, name),
            Change::Namespace(namespace) => in_namespace(&cache.budgets, namespace),
            _ => Vec::new(),
        }
    }

    fn told(cache: &Cache, change: &StateChange) -> Vec<ObjectRef<MCPBudget>> {
        match change {
            StateChange::Tenant(uid) => cache.of_tenant_with_uid(&cache.budgets, uid),
            StateChange::Verdict(Kind::Budget, uid) => only(with_uid(&cache.budgets, uid)),
            StateChange::Verdict(..) => Vec::new(),
        }
    }

    async fn reconcile(object: Arc<MCPBudget>, ctx: Arc<Context>) -> Result<Option<Duration>, ReconcileError> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let namespace = object.namespace().unwrap_or_default();
        let uid = object.uid().unwrap_or_default();
        let tenant = ctx.cache.tenant_of_namespace(&namespace).and_then(|tenant| tenant.uid());
        let (state, verdict, figure);
        let facts = match tenant {
            None => Facts::Unclaimed,
            Some(tenant_uid) => {
                state = ctx.shared_state.tenant_state(&tenant_uid);
                verdict = ctx.shared_state.verdict(Kind::Budget, &uid);
                figure = ctx.shared_state.budgets.get(&uid);
                Facts::Claimed { state: &state, verdict: verdict.as_ref(), figure: figure.as_ref() }
            }
        };
        let next = status::status(&object, &facts, Timestamp::now());
        let api: Api<MCPBudget> = Api::namespaced(ctx.client.clone(), &namespace);
        written::publish(&ctx, &api, &object, next).await?;
        Ok(None)
    }
}

/// Sums up the ledger for status, every few seconds. Never returns.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut last = None;
    loop {
        if last.is_none_or(|last: Instant| last.elapsed() >= SUMMARY_EVERY) || has_news(&ctx) {
            sum_up(&ctx);
            last = Some(Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether there is a budget that was never summed up.
fn has_news(ctx: &Context) -> bool {
    let all = ctx.shared_state.policies.all();
    let mut budgets = all.iter().flat_map(|published| &published.policy.budgets);
    budgets.any(|budget| ctx.shared_state.budgets.get(&budget.uid).is_none())
}

/// Computes where every budget stands, and tells those who show it.
fn sum_up(ctx: &Context) {
    let Some(leading) = ctx.shared_state.policies.leader_state() else { return };
    let now = Timestamp::now().as_second();
    let mut figures = HashMap::new();
    let mut ceilings = Vec::new();
    for published in ctx.shared_state.policies.all() {
        for budget in &published.policy.budgets {
            let Some(span) = Span::containing(budget.period, now) else { continue };
            let book = leading.ledger.book(&budget.uid, span.start);
            let refused = leading.ledger.is_exhausted(&budget.uid, span.start);
            let figure = figure::figure(budget, span, book.as_ref().map(|stored| &stored.book), refused);
            if budget.uid == published.policy.tenant_uid {
                ceilings.push((budget.uid.clone(), figure.spending.clone()));
            }
            figures.insert(budget.uid.clone(), figure);
        }
    }
    for uid in ctx.shared_state.budgets.replace(figures) {
        ctx.shared_state.notify(Kind::Budget, &uid);
    }
    for (tenant_uid, spending) in ceilings {
        ctx.shared_state.update_tenant_state(&tenant_uid, |state| state.spending = Some(spending));
    }
}
