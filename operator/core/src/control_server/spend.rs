//! Answers lease requests and spend reports. A lease is charged before it is sent, and a report is acknowledged after
//! it is written.

use std::sync::Arc;

use jiff::Timestamp;
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{
    self, FromOperator, LeaseAnswer, LeaseRecall, LeaseRequest, SpendAck, SpendItem, SpendReport, from_operator,
};
use mcp_fleet_policy::budget::BudgetBalance;
use mcp_fleet_policy::model::{Budget, TenantPolicy};
use mcp_fleet_policy::units::Micros;

use super::auth::GatewayPod;
use crate::error;
use crate::ledger::book::{self, Amount, Holder, Refusal, Report, ReportItem};
use crate::ledger::record::Owner;
use crate::ledger::{AnyStore, LeaseOutcome, Ledger, LedgerError, period_start};
use crate::shared_state::Published;
use crate::shared_state::{Outbound, Streams};

/// Wraps a message to a gateway.
pub fn message(message: from_operator::Message) -> FromOperator {
    FromOperator { message: Some(message) }
}

/// Charges a lease to the ledger, then sends the answer.
pub(super) async fn answer_lease_request(
    ledger: Arc<Ledger<AnyStore>>,
    gateway: GatewayPod,
    holder: Holder,
    policy: Option<Published>,
    request: LeaseRequest,
    others: &Streams,
    outbound: Outbound,
) {
    let LeaseRequest { request: number, budget_uid, amount, minimum_amount, calls, minimum_calls } = request;
    let mut answer = LeaseAnswer { request: number, budget_uid, ..LeaseAnswer::default() };
    let budget = policy.as_ref().and_then(|published| budget(&published.policy, &answer.budget_uid));
    if let Some(budget) = budget {
        let owner = Owner {
            tenant: gateway.tenant,
            tenant_uid: gateway.tenant_uid,
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
            Ok(granted) => {
                fill(&mut answer, granted, others);
                answer.balance = ledger.balance(budget, answer.period_start).map(to_wire);
            }
            Err(error) => {
                tracing::warn!(
                    tenant = owner.tenant,
                    budget = owner.budget,
                    error = error::chain(&error),
                    "failed to charge a lease"
                );
                answer.set_outcome(Outcome::Unavailable);
            }
        }
    } else {
        answer.set_outcome(Outcome::UnknownBudget);
    }
    // The stream may have ended. Then the gateway repeats the request, or the lease is forfeited.
    let _ = outbound.send(Ok(message(from_operator::Message::Lease(answer)))).await;
}

fn budget<'p>(policy: &'p TenantPolicy, uid: &str) -> Option<&'p Budget> {
    policy.budgets.iter().find(|budget| budget.uid == uid)
}

/// Converts a balance to the wire format.
fn to_wire(balance: BudgetBalance) -> wire::BudgetBalance {
    let BudgetBalance { budget_uid, left_amount, left_calls, spent_amount, spent_calls, period_end, as_of } = balance;
    wire::BudgetBalance {
        budget_uid,
        left_amount: left_amount.map(Micros::get),
        left_calls,
        spent_amount: spent_amount.get(),
        spent_calls,
        period_end,
        as_of_ms: as_of,
    }
}

/// Copies the outcome of a lease request to the answer, and recalls leases of other gateways if it was refused.
fn fill(answer: &mut LeaseAnswer, LeaseOutcome { result, span, recall }: LeaseOutcome, others: &Streams) {
    answer.period_start = span.start;
    answer.period_end = span.end;
    match result {
        Ok(granted) => {
            let remaining = granted.deadline.saturating_sub(Timestamp::now().as_millisecond());
            answer.lease = granted.lease;
            answer.amount = granted.amount.micros;
            answer.calls = granted.amount.calls;
            answer.valid_ms = u64::try_from(remaining).unwrap_or(0);
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

/// Queues a spend report, before a later lease request of the gateway is read. Returns the future that acknowledges it
/// once it is written.
pub(super) fn settle_report(
    ledger: Arc<Ledger<AnyStore>>,
    gateway: GatewayPod,
    holder: Holder,
    policy: Option<Published>,
    report: SpendReport,
    outbound: Outbound,
) -> impl Future<Output = ()> + Send + use<> {
    let SpendReport { lease, budget_uid, sequence, amount, calls, r#final, items } = report;
    let start = period_start(&lease);
    let mut ack = SpendAck { lease: lease.clone(), sequence, balance: None };
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
    let result = ledger.report(&gateway.tenant_uid, &budget_uid, report);
    async move {
        // Without a result, a newer report on the same lease replaced this one, and is acknowledged instead.
        let Ok(result) = result.await else { return };
        match result {
            Ok(()) => {}
            // Acknowledged, because sending an invalid report again would not make it valid.
            Err(error @ (LedgerError::Report(_) | LedgerError::WrongTenant)) => {
                tracing::error!(
                    tenant = gateway.tenant,
                    pod = gateway.pod,
                    error = error::chain(&error),
                    "rejected a spend report"
                );
            }
            Err(error) => {
                tracing::warn!(
                    tenant = gateway.tenant,
                    error = error::chain(&error),
                    "failed to settle a spend report"
                );
                return;
            }
        }
        let published = policy.as_ref().zip(start);
        let found = published.and_then(|(published, start)| Some((budget(&published.policy, &budget_uid)?, start)));
        ack.balance = found.and_then(|(budget, start)| ledger.balance(budget, start)).map(to_wire);
        let _ = outbound.send(Ok(message(from_operator::Message::SpendAck(ack)))).await;
    }
}
