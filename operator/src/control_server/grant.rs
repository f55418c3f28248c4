//! A stream's traffic with the ledger: leases are charged before they are answered, reports acknowledged when they
//! are written.

use std::sync::Arc;

use jiff::Timestamp;
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{
    FromOperator, LeaseAnswer, LeaseRecall, LeaseRequest, SpendAck, SpendItem, SpendReport, from_operator,
};

use super::auth::Caller;
use crate::error;
use crate::ledger::book::{self, Amount, Holder, Refusal, Report, ReportItem};
use crate::ledger::record::Owner;
use crate::ledger::{ApiStore, LeaseOutcome, Ledger, LedgerError};
use crate::shared_state::Published;
use crate::shared_state::{Outbound, Streams};

pub(super) fn message(message: from_operator::Message) -> FromOperator {
    FromOperator { message: Some(message) }
}

/// Charges a lease, then answers.
pub(super) async fn lease(
    ledger: Arc<Ledger<ApiStore>>,
    caller: Caller,
    holder: Holder,
    policy: Option<Published>,
    request: LeaseRequest,
    others: &Streams,
    outbound: Outbound,
) {
    let LeaseRequest { request: number, budget_uid, amount, minimum_amount, calls, minimum_calls } = request;
    let mut answer = LeaseAnswer { request: number, budget_uid, ..LeaseAnswer::default() };
    let budget = policy
        .as_ref()
        .and_then(|published| published.policy.budgets.iter().find(|budget| budget.uid == answer.budget_uid));
    if let Some(budget) = budget {
        let owner = Owner {
            tenant: caller.tenant,
            tenant_uid: caller.tenant_uid,
            budget: budget.name.clone(),
            budget_uid: budget.uid.clone(),
        };
        let request = book::LeaseRequest {
            holder,
            number,
            wanted: Amount { micros: amount, calls },
            minimum: Amount { micros: minimum_amount, calls: minimum_calls },
        };
        match ledger.grant(&owner, budget, &request).await {
            Ok(granted) => fill(&mut answer, granted, others),
            Err(failed) => {
                tracing::warn!(
                    tenant = owner.tenant,
                    budget = owner.budget,
                    error = error::chain(&failed),
                    "failed to charge a lease"
                );
                answer.set_outcome(Outcome::Unavailable);
            }
        }
    } else {
        answer.set_outcome(Outcome::UnknownBudget);
    }
    // The stream may have ended: the lease is then asked for again, or forfeited.
    let _ = outbound.send(Ok(message(from_operator::Message::Lease(answer)))).await;
}

fn fill(answer: &mut LeaseAnswer, LeaseOutcome { result, span, recall }: LeaseOutcome, others: &Streams) {
    answer.period_start = span.start;
    answer.period_end = span.end;
    match result {
        Ok(granted) => {
            let left = granted.deadline.saturating_sub(Timestamp::now().as_millisecond());
            answer.lease = granted.lease;
            answer.amount = granted.amount.micros;
            answer.calls = granted.amount.calls;
            answer.valid_ms = u64::try_from(left).unwrap_or(0);
            answer.set_outcome(Outcome::Granted);
        }
        Err(refusal) => {
            for (pod_uid, lease) in recall {
                let recall = LeaseRecall { lease, budget_uid: answer.budget_uid.clone() };
                others.send(&pod_uid, message(from_operator::Message::Recall(recall)));
            }
            answer.set_outcome(match refusal {
                Refusal::Exhausted => Outcome::Exhausted,
                Refusal::Held => Outcome::Unavailable,
            });
        }
    }
}

/// Settles a report, and acknowledges it once it is written.
pub(super) async fn report(
    ledger: Arc<Ledger<ApiStore>>,
    caller: Caller,
    holder: Holder,
    report: SpendReport,
    outbound: Outbound,
) {
    let SpendReport { lease, budget_uid, sequence, amount, calls, r#final, items } = report;
    let ack = SpendAck { lease: lease.clone(), sequence };
    let items = items
        .into_iter()
        .map(|SpendItem { principal, server, tool, amount, calls }| ReportItem {
            principal,
            server,
            tool,
            amount: Amount { micros: amount, calls },
        })
        .collect();
    let total = Amount { micros: amount, calls };
    let report = Report { holder, lease, sequence, total, last: r#final, items };
    // A newer report on the same lease makes this one void: that one is acknowledged instead.
    let Ok(written) = ledger.report(&caller.tenant_uid, &budget_uid, report).await.await else { return };
    match written {
        Ok(()) => {}
        // A report that cannot be true will not become true by being sent again.
        Err(refused @ (LedgerError::Report(_) | LedgerError::WrongTenant)) => {
            tracing::error!(
                tenant = caller.tenant,
                pod = caller.pod,
                error = error::chain(&refused),
                "refused a report of spending"
            );
        }
        Err(failed) => {
            tracing::warn!(tenant = caller.tenant, error = error::chain(&failed), "failed to settle a report");
            return;
        }
    }
    let _ = outbound.send(Ok(message(from_operator::Message::SpendAck(ack)))).await;
}
