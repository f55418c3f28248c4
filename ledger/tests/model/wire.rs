//! Converts what gateways send to what the ledger reads, as the control stream does.

use mcp_fleet_ledger::book::{Amount, LeaseRequest, Report, ReportItem};
use mcp_fleet_policy::budget as pool;

use crate::state::Process;

pub(crate) fn lease_request(from: Process, request: &pool::LeaseRequest) -> LeaseRequest {
    LeaseRequest {
        holder: from.holder(),
        number: request.request,
        wanted: Amount { micros: request.amount.get(), calls: request.calls },
        minimum: Amount { micros: request.minimum_amount.get(), calls: request.minimum_calls },
    }
}

pub(crate) fn report(from: Process, report: &pool::SpendReport) -> Report {
    let item = |item: &pool::SpendItem| ReportItem {
        principal: item.principal.clone(),
        server: item.server.clone(),
        tool: item.tool.clone(),
        amount: Amount { micros: item.amount.get(), calls: item.calls },
    };
    Report {
        holder: from.holder(),
        lease: report.lease.clone(),
        sequence: report.sequence,
        total: Amount { micros: report.amount.get(), calls: report.calls },
        last: report.last,
        items: report.items.iter().map(item).collect(),
    }
}
