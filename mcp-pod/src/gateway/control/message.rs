//! Conversion of lease requests, spend reports, lease answers, balances, reports of stuck agents and of loops, public names and heads of the audit log
//! to and from the wire format, field by field.

use std::time::Duration;

use mcp_fleet_audit::Head;
use mcp_fleet_certificate::Checked;
use mcp_fleet_control::wire;
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_policy::budget::{
    BudgetBalance, GrantedLease, LeaseAnswer, LeaseOutcome, LeaseRequest, SpendItem, SpendReport,
};
use mcp_fleet_policy::units::Micros;

use crate::gateway::state::{LoopReport, StuckReport};
use crate::tls::Served;

/// Converts a lease request to the wire format.
pub(super) fn request_to_wire(request: LeaseRequest) -> wire::LeaseRequest {
    let LeaseRequest { request, budget_uid, amount, minimum_amount, calls, minimum_calls } = request;
    let (amount, minimum_amount) = (amount.get(), minimum_amount.get());
    wire::LeaseRequest { request, budget_uid, amount, minimum_amount, calls, minimum_calls }
}

/// Converts a spend report to the wire format.
pub(super) fn report_to_wire(report: SpendReport) -> wire::SpendReport {
    let SpendReport { lease, budget_uid, sequence, amount, calls, last, items } = report;
    wire::SpendReport {
        lease,
        budget_uid,
        sequence,
        amount: amount.get(),
        calls,
        r#final: last,
        items: items.into_iter().map(item_to_wire).collect(),
    }
}

/// Converts the report of a stuck agent to the wire format.
pub(super) fn stuck_to_wire(report: StuckReport) -> wire::StuckReport {
    let StuckReport { principal_uid, server, tool, reason } = report;
    wire::StuckReport { principal_uid, server, tool, reason }
}

/// Converts the report of a refused loop to the wire format.
pub(super) fn loop_to_wire(report: LoopReport) -> wire::LoopReport {
    let LoopReport { principal_uid, server, tool, kind, count, duration, cool_down } = report;
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    wire::LoopReport { principal_uid, server, tool, kind: kind.as_str().to_owned(), count, duration_ms, cool_down }
}

/// Converts the public names that are served to the wire format.
pub(super) fn served_to_wire(served: &Served) -> wire::PublicCertificates {
    let certificate = |(name, checked): (&String, &Checked)| wire::PublicCertificate {
        hostname: name.clone(),
        sha256: checked.fingerprint.to_vec(),
        not_after: checked.not_after,
    };
    wire::PublicCertificates { served: served.iter().map(certificate).collect() }
}

fn item_to_wire(item: SpendItem) -> wire::SpendItem {
    let SpendItem { principal, server, tool, amount, calls } = item;
    wire::SpendItem { principal, server, tool, amount: amount.get(), calls }
}

/// Converts the head of the audit log to the wire format.
pub(super) fn head_to_wire(head: Head) -> wire::AuditHead {
    let Head { chain, sequence, digest } = head;
    wire::AuditHead { chain: chain.to_string(), sequence, digest: digest.as_bytes().to_vec() }
}

/// Converts a lease answer from the wire format.
pub(super) fn answer_from_wire(answer: wire::LeaseAnswer) -> LeaseAnswer {
    let wire_outcome = answer.outcome();
    // Only the ledger needs the start of the period, which is part of the lease's id.
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
        balance: _,
    } = answer;
    let outcome = match wire_outcome {
        Outcome::Granted if !lease.is_empty() => LeaseOutcome::Granted(GrantedLease {
            lease,
            amount: Micros::new(amount),
            calls,
            valid: Duration::from_millis(valid_ms),
        }),
        Outcome::Exhausted => LeaseOutcome::Exhausted { period_end },
        Outcome::UnknownBudget => LeaseOutcome::UnknownBudget,
        // An outcome that this version does not know, or a grant without a lease, gives nothing to spend.
        Outcome::Unavailable | Outcome::Unspecified | Outcome::Granted => LeaseOutcome::Unavailable,
    };
    LeaseAnswer { request, budget_uid, outcome }
}

/// Converts a balance from the wire format.
pub(super) fn balance_from_wire(balance: wire::BudgetBalance) -> BudgetBalance {
    let wire::BudgetBalance { budget_uid, left_amount, left_calls, spent_amount, spent_calls, period_end, as_of_ms } =
        balance;
    BudgetBalance {
        budget_uid,
        left_amount: left_amount.map(Micros::new),
        left_calls,
        spent_amount: Micros::new(spent_amount),
        spent_calls,
        period_end,
        as_of: as_of_ms,
    }
}
