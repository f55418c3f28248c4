//! What a person adds to an exhausted budget.

use super::*;
use crate::model::TopUp;

/// End of the day of [`WALL`].
const DAY_END: i64 = (WALL / 86_400 + 1) * 86_400;

#[test]
fn a_call_goes_on_after_a_top_up_and_the_next_refusal_names_the_limit_of_the_period() {
    let before = [budget("daily", Some(5_000), None)];
    let mut pool = pool(&before);
    let exhaust = |pool: &mut LeasePool, budgets: &[Budget], end: i64| {
        assert!(matches!(reserve(pool, at(0), budgets), ReserveOutcome::NeedLease));
        for request in pool.take_lease_requests(at(0)) {
            pool.answer(at(0), WALL, answer(&request, LeaseOutcome::Exhausted { period_end: end }));
        }
        refused(reserve(pool, at(0), budgets))
    };
    let denial = exhaust(&mut pool, &before, DAY_END);
    assert_eq!(denial.limit.as_deref(), Some("the budget `daily` allows 0.005 USD a day"));

    let top_up = TopUp { start: DAY_END - 86_400, amount: Micros::new(2_000), calls: 9 };
    let after = [Budget { top_up: Some(top_up), ..before[0].clone() }];
    pool.apply(at(0), &policy(&after));
    // The refusal from before the top-up is forgotten: a lease is requested at once.
    let denial = exhaust(&mut pool, &after, DAY_END);
    let limit = "the budget `daily` allows 0.007 USD until the reset, with what was added";
    assert_eq!((denial.limit.as_deref(), denial.resets_at), (Some(limit), Some(DAY_END)));

    pool.apply(at(0), &policy(&after));
    let denial = exhaust(&mut pool, &after, DAY_END + 86_400);
    assert_eq!(denial.limit.as_deref(), Some("the budget `daily` allows 0.005 USD a day"), "the next day");
}
