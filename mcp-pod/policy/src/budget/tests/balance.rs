//! Tests of what callers are shown of a budget.

use super::*;
use crate::model::TopUp;

fn balance(as_of: i64, left: u64) -> BudgetBalance {
    BudgetBalance {
        budget_uid: "b".into(),
        left_amount: Some(Micros::new(left)),
        left_calls: None,
        spent_amount: Micros::new(500),
        spent_calls: 5,
        period_end: PERIOD_END,
        as_of,
    }
}

fn remaining(pool: &LeasePool, now: Tick) -> Option<(u64, u64)> {
    let remaining = pool.standing(now, WALL, "b").remaining?;
    assert_eq!((remaining.calls, remaining.spent_calls), (None, 5));
    Some((remaining.amount.unwrap().get(), u64::try_from(remaining.age.as_millis()).unwrap()))
}

#[test]
fn what_is_left_is_the_open_leases_and_what_the_ledger_said_was_in_none() {
    let budgets = [budget("b", Some(8_000), None)];
    let mut pool = pool(&budgets);
    assert_eq!(pool.standing(at(0), WALL, "b"), BudgetStanding { state: BudgetState::Unknown, remaining: None });
    fetch(&mut pool, at(0), &budgets);
    assert_eq!(pool.standing(at(0), WALL, "b"), BudgetStanding { state: BudgetState::Available, remaining: None });
    pool.note_balance(at(100), WALL, balance(1, 2_000));
    assert_eq!(remaining(&pool, at(150)), Some((10_000, 50)));
    // Reserved is not left, spent is not left, and what was given back is.
    let (first, second) = (reserved(&mut pool, at(200), &budgets), reserved(&mut pool, at(200), &budgets));
    assert_eq!(remaining(&pool, at(200)), Some((8_000, 100)));
    pool.settle(at(200), first, Charge::Full);
    pool.settle(at(200), second, Charge::Nothing);
    assert_eq!(remaining(&pool, at(200)), Some((9_000, 100)));
    // A lease that is closed may be returned or forfeited: the ledger will say.
    pool.return_lease(at(300), "lease-1");
    assert_eq!(remaining(&pool, at(300)), Some((2_000, 200)));
}

#[test]
fn an_older_balance_and_one_of_another_period_are_not_shown() {
    let budgets = [budget("b", Some(8_000), None)];
    let mut pool = pool(&budgets);
    pool.note_balance(at(0), WALL, balance(5, 3_000));
    pool.note_balance(at(10), WALL, balance(4, 9_000));
    assert_eq!(remaining(&pool, at(10)), Some((3_000, 10)), "an answer was overtaken");
    pool.note_balance(at(20), WALL, balance(5, 2_000));
    assert_eq!(remaining(&pool, at(20)), Some((2_000, 0)));
    pool.note_balance(at(30), WALL, BudgetBalance { budget_uid: "other".into(), ..balance(9, 9_000) });
    assert_eq!(remaining(&pool, at(30)), Some((2_000, 10)), "the balance of another budget");
    assert_eq!(pool.standing(at(40), PERIOD_END, "b").remaining, None, "the period is over");
    pool.note_balance(at(40), PERIOD_END, balance(9, 9_000));
    assert_eq!(pool.standing(at(40), PERIOD_END, "b").remaining, None, "a late balance of that period");
    // A new leader whose clock is behind begins the next period.
    pool.note_balance(at(50), PERIOD_END, BudgetBalance { period_end: PERIOD_END + 3600, ..balance(1, 8_000) });
    assert_eq!(pool.standing(at(50), PERIOD_END, "b").remaining.unwrap().amount, Some(Micros::new(8_000)));
}

#[test]
fn new_limits_drop_the_balance_and_a_policy_with_the_same_keeps_it() {
    let budgets = [budget("b", Some(8_000), None)];
    let mut pool = pool(&budgets);
    pool.note_balance(at(0), WALL, balance(1, 3_000));
    pool.apply(at(10), &policy(&budgets));
    assert_eq!(remaining(&pool, at(10)), Some((3_000, 10)));
    let more = TopUp { start: PERIOD_END - 86_400, amount: Micros::new(500), calls: 0 };
    for changed in [budget("b", Some(9_000), None), Budget { top_up: Some(more), ..budget("b", Some(9_000), None) }] {
        pool.apply(at(20), &policy(&[changed]));
        assert_eq!(remaining(&pool, at(20)), None);
        pool.note_balance(at(20), WALL, balance(1, 3_000));
    }
}

#[test]
fn leases_of_a_monitored_budget_are_not_left_of_it() {
    let budgets = [Budget { mode: BudgetMode::Monitor, ..budget("b", None, Some(8)) }];
    let mut pool = pool(&budgets);
    let free = PricedCall { price: Micros::ZERO, ..CALL };
    let ReserveOutcome::Reserved(call) = pool.reserve(at(0), WALL, &free, budgets.iter()) else { panic!() };
    for request in pool.take_lease_requests(at(0)) {
        pool.answer(at(0), WALL, grant(&request, request.amount.get(), request.calls));
    }
    pool.note_balance(at(0), WALL, BudgetBalance { left_amount: None, left_calls: Some(3), ..balance(1, 0) });
    let standing = pool.standing(at(0), WALL, "b");
    assert_eq!(standing.state, BudgetState::Available);
    assert_eq!(standing.remaining.map(|remaining| (remaining.amount, remaining.calls)), Some((None, Some(3))));
    pool.settle(at(0), call, Charge::Full);
}
