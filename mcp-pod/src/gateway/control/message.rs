//! Between the book's words and those of the wire, field by field.

use std::time::Duration;

use mcp_fleet_control::wire;
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_policy::budget::{Grant, LeaseAnswer, LeaseOutcome, LeaseRequest, SpendItem, SpendReport};
use mcp_fleet_policy::units::Micros;

/// A request, to the operator.
pub(super) fn request(request: LeaseRequest) -> wire::LeaseRequest {
    let LeaseRequest { request, budget_uid, amount, minimum_amount, calls, minimum_calls } = request;
    let (amount, minimum_amount) = (amount.get(), minimum_amount.get());
    wire::LeaseRequest { request, budget_uid, amount, minimum_amount, calls, minimum_calls }
}

/// A report, to the operator.
pub(super) fn report(report: SpendReport) -> wire::SpendReport {
    let SpendReport { lease, budget_uid, sequence, amount, calls, last, items } = report;
    wire::SpendReport {
        lease,
        budget_uid,
        sequence,
        amount: amount.get(),
        calls,
        r#final: last,
        items: items.into_iter().map(item).collect(),
    }
}

fn item(item: SpendItem) -> wire::SpendItem {
    let SpendItem { principal, server, tool, amount, calls } = item;
    wire::SpendItem { principal, server, tool, amount: amount.get(), calls }
}

/// An answer, from the operator.
pub(super) fn answer(answer: wire::LeaseAnswer) -> LeaseAnswer {
    let decided = answer.outcome();
    // The period's start is the ledger's own matter: the lease's id carries it.
    let wire::LeaseAnswer {
        request,
        budget_uid,
        lease,
        amount,
        calls,
        period_start: _,
        valid_ms,
        period_end,
        outcome: _,
    } = answer;
    let outcome = match decided {
        Outcome::Granted if !lease.is_empty() => LeaseOutcome::Granted(Grant {
            lease,
            amount: Micros::new(amount),
            calls,
            valid: Duration::from_millis(valid_ms),
        }),
        Outcome::Exhausted => LeaseOutcome::Exhausted { period_end },
        Outcome::UnknownBudget => LeaseOutcome::UnknownBudget,
        // A word that this version does not know, or a grant of nothing, gives nothing to spend.
        Outcome::Unavailable | Outcome::Unspecified | Outcome::Granted => LeaseOutcome::Unavailable,
    };
    LeaseAnswer { request, budget_uid, outcome }
}
