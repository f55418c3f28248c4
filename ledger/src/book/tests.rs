#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const DEADLINE: i64 = 10_000;

fn money(micros: u64) -> Amount {
    Amount { micros, calls: 0 }
}

fn limit(micros: u64) -> Limit {
    Limit { micros: Some(micros), calls: None }
}

fn holder(epoch: &str) -> Holder {
    Holder { pod_uid: "pod".into(), epoch: epoch.into() }
}

fn book() -> Book {
    Book::new(Span { start: 0, end: 86_400 })
}

fn request(number: u64, wanted: u64, minimum: u64) -> LeaseRequest {
    LeaseRequest { holder: holder("a"), number, wanted: money(wanted), minimum: money(minimum) }
}

fn report(lease: &str, sequence: u64, total: u64, last: bool) -> Report {
    let item = ReportItem {
        principal: "acme/coder".into(),
        server: "files".into(),
        tool: "read".into(),
        amount: Amount { micros: total, calls: 1 },
    };
    Report {
        holder: holder("a"),
        lease: lease.into(),
        sequence,
        total: Amount { micros: total, calls: 1 },
        last,
        items: vec![item],
    }
}

#[test]
fn a_granted_lease_is_charged_before_anything_is_spent() {
    let mut book = book();
    let granted = book.grant(&request(1, 40, 10), limit(100), "l1".into(), DEADLINE).unwrap();
    assert_eq!(granted.amount.micros, 40);
    assert_eq!(book.leased(), money(40));
    assert_eq!(book.settled(), money(0));
}

#[test]
fn a_lease_gets_at_most_half_of_what_is_left_unless_it_needs_more() {
    let mut book = book();
    assert_eq!(book.grant(&request(1, 500, 10), limit(100), "l1".into(), DEADLINE).unwrap().amount.micros, 50);
    assert_eq!(book.grant(&request(2, 500, 50), limit(100), "l2".into(), DEADLINE).unwrap().amount.micros, 50);
    assert_eq!(book.grant(&request(3, 500, 1), limit(100), "l3".into(), DEADLINE), Err(Refusal::Exhausted));
}

#[test]
fn a_repeated_request_gets_the_same_lease_and_charges_nothing() {
    let mut book = book();
    let first = book.grant(&request(1, 40, 10), limit(100), "l1".into(), DEADLINE).unwrap();
    let again = book.grant(&request(1, 40, 10), limit(100), "l2".into(), DEADLINE + 5).unwrap();
    assert!(first.new && !again.new);
    assert_eq!((again.lease.as_str(), again.amount, again.deadline), ("l1", first.amount, DEADLINE));
    assert_eq!(book.leased(), money(40));
}

#[test]
fn a_budget_of_calls_counts_money_without_limiting_it() {
    let mut book = book();
    let limit = Limit { micros: None, calls: Some(2) };
    let wanted = Amount { micros: 7, calls: 2 };
    let request = LeaseRequest { holder: holder("a"), number: 1, wanted, minimum: Amount { micros: 7, calls: 1 } };
    assert_eq!(book.grant(&request, limit, "l1".into(), DEADLINE).unwrap().amount, Amount { micros: 7, calls: 1 });
    book.report(&report("l1", 1, 1_000_000, true)).unwrap();
    assert_eq!(book.settled(), Amount { micros: 1_000_000, calls: 1 });
    assert_eq!(book.charged().calls, 1);
}

#[test]
fn the_final_report_returns_what_was_not_spent() {
    let mut book = book();
    book.grant(&request(1, 40, 10), limit(100), "l1".into(), DEADLINE).unwrap();
    assert_eq!(book.report(&report("l1", 1, 15, false)), Ok(ReportOutcome::Applied));
    assert_eq!((book.settled().micros, book.leased().micros), (15, 25));
    assert_eq!(book.report(&report("l1", 2, 18, true)), Ok(ReportOutcome::Applied));
    assert_eq!((book.settled().micros, book.leased().micros, book.charged().micros), (18, 0, 18));
    assert_eq!(book.report(&report("l1", 2, 18, true)), Ok(ReportOutcome::Unchanged));
    assert_eq!(book.settled().micros, 18);
}

#[test]
fn a_report_with_an_old_sequence_number_changes_nothing() {
    let mut book = book();
    book.grant(&request(1, 40, 10), limit(100), "l1".into(), DEADLINE).unwrap();
    book.report(&report("l1", 3, 15, false)).unwrap();
    let before = book.clone();
    assert_eq!(book.report(&report("l1", 3, 20, false)), Ok(ReportOutcome::Unchanged));
    assert_eq!(book.report(&report("l1", 2, 20, true)), Ok(ReportOutcome::Unchanged));
    assert_eq!(book, before);
}

#[test]
fn a_rejected_report_changes_nothing() {
    let mut book = book();
    book.grant(&request(1, 40, 10), limit(100), "l1".into(), DEADLINE).unwrap();
    book.report(&report("l1", 1, 15, false)).unwrap();
    let before = book.clone();
    assert_eq!(book.report(&report("l1", 2, 41, false)), Err(ReportRejection::Overspent));
    assert_eq!(book.report(&report("l1", 2, 14, true)), Err(ReportRejection::Decreased));
    let stranger = Report { holder: holder("b"), ..report("l1", 2, 20, true) };
    assert_eq!(book.report(&stranger), Err(ReportRejection::NotHolder));
    let mut inflated = report("l1", 2, 20, false);
    inflated.items[0].amount.micros = 21;
    assert_eq!(book.report(&inflated), Err(ReportRejection::ItemsExceedTotal));
    assert_eq!(book, before);
}

#[test]
fn an_overdue_lease_is_forfeited_and_a_late_report_still_settles_it() {
    let mut book = book();
    book.grant(&request(1, 40, 10), limit(100), "l1".into(), DEADLINE).unwrap();
    book.report(&report("l1", 1, 15, false)).unwrap();
    assert!(!book.expire(DEADLINE + 999, 1000));
    assert!(book.expire(DEADLINE + 1000, 1000));
    assert_eq!((book.settled().micros, book.leased().micros, book.forfeited().micros), (15, 0, 25));
    assert_eq!(book.report(&report("l1", 2, 20, false)), Ok(ReportOutcome::Applied));
    assert_eq!((book.settled().micros, book.forfeited().micros), (20, 20));
    assert_eq!(book.report(&report("l1", 3, 22, true)), Ok(ReportOutcome::Applied));
    assert_eq!((book.settled().micros, book.forfeited().micros, book.charged().micros), (22, 0, 22));
}

#[test]
fn the_list_of_forfeits_is_bounded_and_their_sum_is_preserved() {
    let mut book = book();
    for number in 0..100 {
        book.grant(&request(number, 1, 1), limit(1000), format!("l{number}"), DEADLINE).unwrap();
        book.forfeit(0, |_| true);
    }
    assert_eq!(book.forfeits.len(), MAX_FORFEITS);
    assert_eq!(book.forfeited().micros, 100);
}

#[test]
fn rows_are_bounded_and_further_spend_goes_to_the_shared_row() {
    for (capacity, prefix, length, rows) in [
        (Capacity::SPEND_LIMIT, "p", 0, 1000),
        (Capacity::SPEND_LIMIT, "p", 300, 128 * 1024 / 315),
        (Capacity::SPEND_LIMIT, "\u{1}", 0, 0),
        (Capacity::SPEND_LIMIT, "\"", 0, 0),
        // As names of tools may be.
        (Capacity::SPEND_LIMIT, "$a b", 0, 1000),
        (Capacity::BUDGET, "p", 0, 64),
        (Capacity::BUDGET, "p", 300, 8 * 1024 / 315),
    ] {
        let name = |index: u64| format!("acme/{prefix}{index:0>length$}");
        let mut book = Book { capacity, ..book() };
        let total = 1050;
        book.grant(&request(1, total, total), limit(10_000), "l1".into(), DEADLINE).unwrap();
        let item = |index: u64| ReportItem {
            principal: name(index),
            server: "files".into(),
            tool: "read".into(),
            amount: money(1),
        };
        let mut report = report("l1", 1, total, false);
        report.items = (0..total).map(item).collect();
        book.report(&report).unwrap();
        let named = rows.min(capacity.entries);
        assert_eq!(book.rows.len(), rows + 1, "{} of {capacity:?}", name(0));
        assert_eq!(book.rows[rows].amount.micros, total - named as u64);
        assert_eq!(book.settled().micros, total);
        report.sequence = 2;
        report.last = true;
        book.report(&report).unwrap();
        assert_eq!(book.settled().micros, total);
    }
}

#[test]
fn rows_that_are_in_use_keep_their_names_among_the_closed_periods() {
    let period = |start: i64, names: std::ops::Range<u64>| {
        let mut period = Book { capacity: Capacity::BUDGET, ..Book::new(Span { start, end: start + 3600 }) };
        for index in names {
            let row = period.row_of(&format!("acme/p{index}"), "files", "read").unwrap();
            period.add_to_row(row, money(1));
        }
        period
    };
    let mut closed = period(0, 0..0);
    let mut added = 0;
    for (hour, names) in [(1, 0..40), (2, 30..64), (3, 60..110), (4, 100..164)] {
        let period = period(hour * 3600, names);
        closed.add_closed(&period);
        added += period.settled().micros;
        assert_eq!(closed.settled().micros, added);
        check_total(&closed);
        assert!(closed.rows.len() <= Capacity::BUDGET.rows + 1);
        for row in &period.rows {
            assert!(closed.rows.iter().any(|kept| kept.principal == row.principal), "{row:?} in hour {hour}");
        }
        assert_eq!(closed.last_closed, Some(ClosedPeriod { start: hour * 3600, settled: period.settled() }));
    }
    assert_eq!(closed.rows.iter().find(|row| row.principal == "acme/p105").unwrap().amount, money(2));
    let mut restored = period(0, 30..50);
    restored.absorb(&closed);
    check_total(&restored);
    restored.close();
    check_total(&restored);
    assert_eq!(restored.settled().micros, added + 20);
}

#[test]
fn a_refusal_tells_whether_other_holders_could_return_enough() {
    let mut book = book();
    book.grant(&request(1, 100, 100), limit(100), "l1".into(), DEADLINE).unwrap();
    let other = LeaseRequest { holder: holder("b"), ..request(1, 10, 10) };
    assert_eq!(book.grant(&other, limit(100), "l2".into(), DEADLINE), Err(Refusal::Held));
    book.report(&report("l1", 1, 100, true)).unwrap();
    assert_eq!(book.grant(&other, limit(100), "l2".into(), DEADLINE), Err(Refusal::Exhausted));
}

/// An event at a gateway or on the connection.
#[derive(Clone, Debug)]
enum Step {
    Request { gateway: usize, wanted: u64, minimum: u64, response_lost: bool },
    Spend { gateway: usize, amount: u64 },
    Report { gateway: usize, last: bool },
    Deliver { index: usize, keep: bool },
    Crash { gateway: usize },
    Expire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gateway = 0..3_usize;
    let step = prop_oneof![
        (gateway.clone(), 1..60_u64, 0..30_u64, any::<bool>()).prop_map(|(gateway, wanted, minimum, response_lost)| {
            Step::Request { gateway, wanted, minimum, response_lost }
        }),
        (gateway.clone(), 1..20_u64).prop_map(|(gateway, amount)| Step::Spend { gateway, amount }),
        (gateway.clone(), any::<bool>()).prop_map(|(gateway, last)| Step::Report { gateway, last }),
        (0..8_usize, any::<bool>()).prop_map(|(index, keep)| Step::Deliver { index, keep }),
        gateway.prop_map(|gateway| Step::Crash { gateway }),
        Just(Step::Expire),
    ];
    proptest::collection::vec(step, 0..120)
}

fn check_total(book: &Book) {
    assert_eq!(book.row_total, book.rows.iter().map(|row| row.amount).sum(), "the sum of the rows is wrong");
}

/// The true state of a gateway, which the book cannot see: what it holds and what it spent.
#[derive(Default)]
struct Gateway {
    epoch: u64,
    request: u64,
    /// Granted amount, spent amount and report sequence of each lease.
    leases: BTreeMap<String, (u64, u64, u64)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn spend_never_exceeds_the_charge_and_the_charge_never_exceeds_the_limit(steps in steps(), cap in 50..400_u64) {
        let mut book = book();
        let mut gateways: Vec<Gateway> = (0..3).map(|_| Gateway::default()).collect();
        let mut wire: Vec<Report> = Vec::new();
        let mut total_spent = 0;
        let mut settled = 0;
        for (count, step) in steps.into_iter().enumerate() {
            match step {
                Step::Request { gateway: index, wanted, minimum, response_lost } => {
                    let gateway = &mut gateways[index];
                    gateway.request += u64::from(!response_lost);
                    let holder = Holder { pod_uid: index.to_string(), epoch: gateway.epoch.to_string() };
                    let number = gateway.request;
                    let request = LeaseRequest { holder, number, wanted: money(wanted), minimum: money(minimum) };
                    let result = book.grant(&request, limit(cap), format!("l{count}"), DEADLINE);
                    if let (Ok(granted), false) = (result, response_lost) {
                        gateway.leases.entry(granted.lease).or_insert((granted.amount.micros, 0, 0));
                    }
                }
                Step::Spend { gateway, amount } => {
                    if let Some((granted, spent, _)) = gateways[gateway].leases.values_mut().next() {
                        let amount = amount.min(*granted - *spent);
                        *spent += amount;
                        total_spent += amount;
                    }
                }
                Step::Report { gateway: index, last } => {
                    let gateway = &mut gateways[index];
                    let Some((lease, (_, spent, sequence))) = gateway.leases.iter_mut().next() else { continue };
                    *sequence += 1;
                    let holder = Holder { pod_uid: index.to_string(), epoch: gateway.epoch.to_string() };
                    wire.push(Report { holder, ..report(lease, *sequence, *spent, last) });
                    let lease = lease.clone();
                    if last {
                        gateway.leases.remove(&lease);
                    }
                }
                Step::Deliver { index, keep } => {
                    if wire.is_empty() { continue; }
                    let index = index % wire.len();
                    let result = book.report(&wire[index]);
                    prop_assert!(result.is_ok(), "{result:?}");
                    if !keep { wire.remove(index); }
                }
                Step::Crash { gateway } => {
                    gateways[gateway].epoch += 1;
                    gateways[gateway].leases.clear();
                }
                Step::Expire => { book.expire(DEADLINE, 0); }
            }
            prop_assert!(total_spent <= book.charged().micros, "{total_spent} spent, {:?}", book.charged());
            prop_assert!(book.charged().micros <= cap);
            prop_assert!(book.settled().micros >= settled, "settled spend went down");
            settled = book.settled().micros;
            check_total(&book);
        }
    }
}
