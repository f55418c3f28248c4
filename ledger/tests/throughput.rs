//! How many lease operations a full book takes in a second. Prints the figure; no limit is asserted, since machines differ.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use mcp_fleet_ledger::book::{Amount, Book, Holder, LeaseRequest, Limit, Report, ReportItem};
use mcp_fleet_ledger::commit::{Grant, apply};
use mcp_fleet_ledger::period::Span;

/// Operations that are committed by one write: with two writes a second, 20,000 operations a second.
const GROUP: u64 = 10_000;
const HOLDERS: u64 = 48;
const ROWS: u64 = 1000;
const ITEMS: u64 = 3;

fn item(row: u64, calls: u64) -> ReportItem {
    let (principal, server) = (format!("acme/agent-{:03}", row / 10), "filesystem".to_owned());
    ReportItem {
        principal,
        server,
        tool: format!("read_text_file_{}", row % 10),
        amount: Amount { micros: calls, calls },
    }
}

fn holder(number: u64) -> Holder {
    Holder { pod_uid: format!("7b1f4c1e-55a0-4f0e-9a0b-{number:012}"), epoch: "01KB3Q7V9Z0000000000000000".into() }
}

/// A lease request, and the final report on it.
fn operation(number: u64) -> (Grant, Report) {
    let wanted = Amount { micros: 1000, calls: 1000 };
    let id = format!("1794960000.{number:026}");
    let request = LeaseRequest { holder: holder(number % HOLDERS), number, wanted, minimum: wanted };
    let items: Vec<ReportItem> = (0..ITEMS).map(|item_number| item((number * 7 + item_number) % ROWS, 1)).collect();
    let total = Amount { micros: ITEMS, calls: ITEMS };
    let report = Report { holder: request.holder.clone(), lease: id.clone(), sequence: 1, total, last: true, items };
    let limit = Limit { micros: Some(u64::MAX / 2), calls: None };
    (Grant { request, limit, id, deadline: i64::MAX, period_end: 0 }, report)
}

#[test]
fn lease_operations_of_a_full_book() {
    let mut book = Book::new(Span { start: 1_794_960_000, end: 1_795_046_400 });
    let mut commit = |operations: &[(Grant, Report)]| {
        // As an operator does: a copy is changed, and replaces the book once it is written.
        let mut changed = book.clone();
        for group in operations.chunks(usize::try_from(HOLDERS).unwrap()) {
            let grants = apply(&mut changed, [].iter(), group.iter().map(|(grant, _)| grant), true).grants;
            assert!(grants.iter().all(Result::is_ok));
            let reports = apply(&mut changed, group.iter().map(|(_, report)| report), [].iter(), true).reports;
            assert!(reports.iter().all(Result::is_ok));
        }
        book = changed;
    };
    let operations: Vec<_> = (0..GROUP / 2).map(operation).collect();
    commit(&operations);
    let start = Instant::now();
    commit(&(GROUP..GROUP + GROUP / 2).map(operation).collect::<Vec<_>>());
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((book.rows.len(), book.leases.len()), (usize::try_from(ROWS).unwrap(), 0));
    assert_eq!(book.settled().calls, GROUP * ITEMS);
    println!(
        "{GROUP} lease operations on {ROWS} rows in {seconds:.3} s: {:.0} a second",
        f64::from(u32::try_from(GROUP).unwrap()) / seconds
    );
}
