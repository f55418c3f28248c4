//! Tests of budgets that only count.

use super::*;
use crate::model::BudgetMode;

fn monitored(uid: &str, calls: u64) -> Budget {
    Budget { mode: BudgetMode::Monitor, ..budget(uid, None, Some(calls)) }
}

/// Makes a call that is charged or not.
fn call(pool: &mut LeasePool, now: Tick, budgets: &[Budget], charge: Charge) {
    let reservation = reserved(pool, now, budgets);
    pool.settle(now, reservation, charge);
}

const FREE: PricedCall<'_> = PricedCall { price: Micros::ZERO, ..CALL };

fn reserve_free(pool: &mut LeasePool, now: Tick, budgets: &[Budget]) -> ReserveOutcome {
    pool.reserve(now, WALL, &FREE, budgets.iter())
}

fn free(pool: &mut LeasePool, now: Tick, budgets: &[Budget], charge: Charge) {
    let ReserveOutcome::Reserved(reservation) = reserve_free(pool, now, budgets) else { panic!("not reserved") };
    pool.settle(now, reservation, charge);
}

/// Returns the calls that the pool reports now.
fn reported(pool: &mut LeasePool, now: Tick) -> Vec<u64> {
    pool.take_reports(now).iter().map(|report| report.calls).collect()
}

#[test]
fn calls_do_not_wait_for_a_lease_and_are_counted_once_there_is_one() {
    let budgets = [monitored("b", 2)];
    let mut pool = pool(&budgets);
    for _ in 0..5 {
        free(&mut pool, at(0), &budgets, Charge::Full);
    }
    free(&mut pool, at(0), &budgets, Charge::Nothing);
    let open = reserve_free(&mut pool, at(0), &budgets);
    let requests = pool.take_lease_requests(at(0));
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert!(request.calls > 1_000_000, "the limit does not limit leases");
    pool.answer(at(1), WALL, grant(request, request.amount.get(), request.calls));
    pool.expire_leases(at(500));
    assert_eq!(reported(&mut pool, at(2_000)), [5]);
    pool.leases().for_each(lease::Lease::check);
    // A call that began before the lease ends after it, and later ones use the lease.
    let ReserveOutcome::Reserved(open) = open else { panic!("not reserved") };
    pool.settle(at(2_500), open, Charge::Full);
    free(&mut pool, at(2_500), &budgets, Charge::Full);
    pool.acknowledge_report("lease-1", 1);
    pool.expire_leases(at(3_000));
    assert_eq!(reported(&mut pool, at(4_000)), [7]);
}

#[test]
fn a_ledger_that_refuses_or_is_away_refuses_nothing() {
    let budgets = [monitored("b", 2)];
    let mut pool = pool(&budgets);
    for outcome in [LeaseOutcome::Unavailable, LeaseOutcome::Exhausted { period_end: PERIOD_END }] {
        free(&mut pool, at(0), &budgets, Charge::Full);
        let request = pool.take_lease_requests(at(0)).pop().unwrap();
        pool.answer(at(0), WALL, answer(&request, outcome));
        free(&mut pool, at(1), &budgets, Charge::Full);
        assert_eq!(pool.take_lease_requests(at(1)), [], "each call asks the ledger again");
        pool.apply(at(2), &policy(&budgets));
    }
    // Without another call, what is not counted yet causes the next request.
    pool.expire_leases(at(60_000));
    let request = pool.take_lease_requests(at(60_000)).pop().unwrap();
    assert_eq!(request.minimum_calls, 4);
    pool.answer(at(60_000), WALL, grant(&request, request.amount.get(), request.calls));
    pool.expire_leases(at(60_500));
    assert_eq!(reported(&mut pool, at(62_000)), [4]);
    pool.close(at(63_000));
    free(&mut pool, at(63_000), &budgets, Charge::Full);
    assert_eq!(pool.take_lease_requests(at(63_000)), [], "a closed pool takes no more leases");
}

#[test]
fn an_enforced_budget_beside_a_monitored_one_still_refuses() {
    let budgets = [monitored("m", 1), budget("e", None, Some(2))];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve_free(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    let requests = pool.take_lease_requests(at(0));
    let enforced = requests.iter().find(|request| request.budget_uid == "e").unwrap();
    pool.answer(at(0), WALL, answer(enforced, LeaseOutcome::Exhausted { period_end: PERIOD_END }));
    assert_eq!(refused(reserve_free(&mut pool, at(0), &budgets)).reason, Reason::BudgetExhausted);
    // A refused call is not counted.
    pool.expire_leases(at(500));
    let monitored = requests.iter().find(|request| request.budget_uid == "m").unwrap();
    pool.answer(at(600), WALL, grant(monitored, monitored.amount.get(), monitored.calls));
    pool.expire_leases(at(1_000));
    assert_eq!(reported(&mut pool, at(5_000)), [0; 0]);
}

#[test]
fn a_monitored_amount_covers_no_price() {
    let budgets = [Budget { mode: BudgetMode::Monitor, ..budget("b", Some(5_000_000), None) }];
    let mut pool = pool(&budgets);
    assert_eq!(refused(reserve(&mut pool, at(0), &budgets)).reason, Reason::PriceUncovered);
    let with_limit = [budgets[0].clone(), budget("limit", Some(5_000_000), None)];
    pool.apply(at(0), &policy(&with_limit));
    fetch(&mut pool, at(0), &with_limit);
    call(&mut pool, at(0), &with_limit, Charge::Full);
    pool.expire_leases(at(500));
    let mut reports: Vec<_> = pool.take_reports(at(2_000)).into_iter().map(|it| (it.budget_uid, it.amount)).collect();
    reports.sort_unstable();
    assert_eq!(reports, [("b".to_owned(), PRICE), ("limit".to_owned(), PRICE)]);
}

#[test]
fn a_budget_that_begins_to_refuse_needs_leases_at_once() {
    let before = [monitored("b", 2)];
    let mut pool = pool(&before);
    free(&mut pool, at(0), &before, Charge::Full);
    let after = [budget("b", None, Some(2))];
    pool.apply(at(1), &policy(&after));
    assert!(matches!(reserve_free(&mut pool, at(1), &after), ReserveOutcome::NeedLease));
    // And one that no longer refuses needs none.
    pool.apply(at(2), &policy(&before));
    free(&mut pool, at(2), &before, Charge::Full);
}
