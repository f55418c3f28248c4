//! Tests of what reports contain.

use super::*;

#[test]
fn reports_hold_totals_by_principal_and_tool() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    fetch(&mut pool, at(0), &budgets);
    let first = reserved(&mut pool, at(0), &budgets);
    let second = reserved(&mut pool, at(0), &budgets);
    let third = reserved(&mut pool, at(0), &budgets);
    pool.settle(at(0), first, Charge::Full);
    pool.settle(at(0), second, Charge::Nothing);
    assert_eq!(pool.take_reports(at(999)), []);
    let reports = pool.take_reports(at(1000));
    let item = SpendItem {
        principal: "acme/coder".into(),
        server: "files".into(),
        tool: "read".into(),
        amount: PRICE,
        calls: 1,
    };
    assert_eq!(
        reports,
        [SpendReport {
            lease: "lease-1".into(),
            budget_uid: "b".into(),
            sequence: 1,
            amount: PRICE,
            calls: 1,
            last: false,
            items: vec![item],
        }]
    );
    // The report was lost with its connection: it is sent again unchanged, even if more was spent since.
    pool.settle(at(1100), third, Charge::Full);
    pool.resend_unanswered();
    assert_eq!(pool.take_reports(at(1100)), reports);
    pool.acknowledge_report("lease-1", 1);
    let next = pool.take_reports(at(2200));
    assert_eq!((next[0].sequence, next[0].amount.get(), next[0].calls), (2, 2000, 2));
}

#[test]
fn what_a_result_does_not_ask_for_is_left_in_the_lease() {
    let budgets = [budget("b", Some(5_000), Some(10))];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    for request in pool.take_lease_requests(at(0)) {
        pool.answer(at(0), WALL, grant(&request, PRICE.get(), 3));
    }
    let first = reserved(&mut pool, at(0), &budgets);
    pool.settle(at(0), first, Charge::Stated(Micros::ZERO));
    let second = reserved(&mut pool, at(0), &budgets);
    // More than was reserved is never charged.
    pool.settle(at(0), second, Charge::Stated(Micros::new(9_000)));
    let report = pool.take_reports(at(2_000)).remove(0);
    assert_eq!((report.amount, report.calls), (PRICE, 2));
}
