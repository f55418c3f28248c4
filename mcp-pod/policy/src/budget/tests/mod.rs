//! Tests of the pool: every reservation is covered by a lease, and every report matches what was spent.

mod ahead;
mod balance;
mod monitor;
mod reports;
mod top_up;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Budget, BudgetMode, Period, Selector, TenantPolicy};
use crate::reason::Reason;
use crate::testing;
use crate::tick::Tick;

const WALL: i64 = 1_795_305_600;
const PERIOD_END: i64 = WALL + 3600;
const PRICE: Micros = Micros::new(1_000);

fn at(millis: u64) -> Tick {
    Tick::ZERO.plus(Duration::from_millis(millis))
}

fn budget(uid: &str, amount: Option<u64>, calls: Option<u64>) -> Budget {
    Budget {
        name: uid.into(),
        uid: uid.into(),
        selector: Selector::default(),
        period: Period::Day,
        amount: amount.map(Micros::new),
        calls,
        mode: BudgetMode::Enforce,
        top_up: None,
    }
}

fn policy(budgets: &[Budget]) -> TenantPolicy {
    TenantPolicy { currency: "USD".parse().ok(), budgets: budgets.to_vec(), ..testing::policy() }
}

fn pool(budgets: &[Budget]) -> LeasePool {
    let mut pool = LeasePool::new();
    pool.apply(at(0), &policy(budgets));
    pool
}

const CALL: PricedCall<'_> = PricedCall { principal: "acme/coder", server: "files", tool: "read", price: PRICE };

fn reserve(pool: &mut LeasePool, now: Tick, budgets: &[Budget]) -> ReserveOutcome {
    pool.reserve(now, WALL, &CALL, budgets.iter())
}

fn reserved(pool: &mut LeasePool, now: Tick, budgets: &[Budget]) -> Reservation {
    match reserve(pool, now, budgets) {
        ReserveOutcome::Reserved(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

fn refused(outcome: ReserveOutcome) -> Denial {
    match outcome {
        ReserveOutcome::Denied(denial) => denial,
        other => panic!("{other:?}"),
    }
}

fn grant(request: &LeaseRequest, amount: u64, calls: u64) -> LeaseAnswer {
    let grant = GrantedLease {
        lease: format!("lease-{}", request.request),
        amount: Micros::new(amount),
        calls,
        valid: Duration::from_secs(60),
    };
    answer(request, LeaseOutcome::Granted(grant))
}

fn answer(request: &LeaseRequest, outcome: LeaseOutcome) -> LeaseAnswer {
    LeaseAnswer { request: request.request, budget_uid: request.budget_uid.clone(), outcome }
}

/// Requests a lease and grants it in full.
fn fetch(pool: &mut LeasePool, now: Tick, budgets: &[Budget]) {
    assert!(matches!(reserve(pool, now, budgets), ReserveOutcome::NeedLease));
    for request in pool.take_lease_requests(now) {
        pool.answer(now, WALL, grant(&request, request.amount.get(), request.calls));
    }
}

#[test]
fn one_lease_is_requested_and_covers_many_calls() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    let requests = pool.take_lease_requests(at(0));
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((request.minimum_amount, request.amount), (PRICE, Micros::new(625_000)));
    assert_eq!(request.minimum_calls, 1);
    assert_eq!(pool.take_lease_requests(at(0)), []);
    pool.answer(at(0), WALL, grant(request, 625_000, 1000));
    for _ in 0..625 {
        let reservation = reserved(&mut pool, at(1), &budgets);
        pool.settle(at(1), reservation, Charge::Full);
    }
    assert!(matches!(reserve(&mut pool, at(1), &budgets), ReserveOutcome::NeedLease));
}

#[test]
fn a_priced_call_without_a_budget_is_refused_and_a_free_one_needs_none() {
    let mut pool = pool(&[]);
    assert_eq!(refused(reserve(&mut pool, at(0), &[])).reason, Reason::PriceUncovered);
    let free = PricedCall { price: Micros::ZERO, ..CALL };
    assert!(matches!(pool.reserve(at(0), WALL, &free, [].iter()), ReserveOutcome::Reserved(_)));
    let money = [budget("b", Some(1), None)];
    assert!(matches!(pool.reserve(at(0), WALL, &free, money.iter()), ReserveOutcome::Reserved(_)));
    // A budget that only counts calls does not cover a price.
    assert_eq!(refused(reserve(&mut pool, at(0), &[budget("b", None, Some(9))])).reason, Reason::PriceUncovered);
}

#[test]
fn a_call_reserves_from_every_budget_or_from_none() {
    let budgets = [budget("a", Some(5_000_000), None), budget("b", Some(5_000_000), Some(2))];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    let requests = pool.take_lease_requests(at(0));
    let first = requests.iter().find(|request| request.budget_uid == "a").unwrap();
    let second = requests.iter().find(|request| request.budget_uid == "b").unwrap();
    pool.answer(at(0), WALL, grant(first, 5_000, 9));
    pool.answer(at(0), WALL, answer(second, LeaseOutcome::Exhausted { period_end: PERIOD_END }));
    assert_eq!(refused(reserve(&mut pool, at(0), &budgets)).reason, Reason::BudgetExhausted);
    assert_eq!(pool.leases().map(lease::Lease::reserved_calls).sum::<u64>(), 0);
}

#[test]
fn an_exhausted_budget_is_not_requested_again_at_once() {
    let budgets = [budget("coder-daily", Some(5_000_000), Some(1000))];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    let request = pool.take_lease_requests(at(0)).remove(0);
    pool.answer(at(0), WALL, answer(&request, LeaseOutcome::Exhausted { period_end: PERIOD_END }));
    let denial = refused(reserve(&mut pool, at(500), &budgets));
    assert_eq!(denial.reason, Reason::BudgetExhausted);
    assert_eq!(denial.resets_at, Some(PERIOD_END));
    assert_eq!(denial.limit.as_deref(), Some("the budget `coder-daily` allows 5 USD and 1000 calls a day"));
    assert_eq!(pool.take_lease_requests(at(500)), []);
    // Another gateway may return an amount, so it is requested again, after a longer time on each refusal.
    assert!(matches!(reserve(&mut pool, at(1000), &budgets), ReserveOutcome::NeedLease));
    let request = pool.take_lease_requests(at(1000)).remove(0);
    pool.answer(at(1000), WALL, answer(&request, LeaseOutcome::Exhausted { period_end: PERIOD_END }));
    refused(reserve(&mut pool, at(2900), &budgets));
    // A new policy may have raised the limit.
    pool.apply(at(2900), &policy(&budgets));
    assert!(matches!(reserve(&mut pool, at(2900), &budgets), ReserveOutcome::NeedLease));
}

#[test]
fn an_unavailable_ledger_is_not_reported_as_an_exhausted_budget() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    let request = pool.take_lease_requests(at(0)).remove(0);
    pool.answer(at(0), WALL, answer(&request, LeaseOutcome::Unavailable));
    let denial = refused(reserve(&mut pool, at(400), &budgets));
    assert_eq!((denial.reason, denial.retry_after), (Reason::BudgetUnavailable, Some(Duration::from_millis(600))));
}

#[test]
fn a_request_that_the_ledger_could_not_answer_keeps_its_number_until_it_is_answered() {
    let budgets = [budget("b", Some(10_000), None)];
    let mut pool = pool(&budgets);
    let request = |pool: &mut LeasePool, now: Tick| {
        assert!(matches!(reserve(pool, now, &budgets), ReserveOutcome::NeedLease));
        pool.take_lease_requests(now).remove(0)
    };
    let first = request(&mut pool, at(0));
    pool.answer(at(0), WALL, answer(&first, LeaseOutcome::Unavailable));
    pool.apply(at(1), &policy(&budgets));
    let second = request(&mut pool, at(2_000));
    assert_eq!(second.request, first.request, "the ledger may have charged a lease for it");
    pool.answer(at(2_000), WALL, grant(&second, PRICE.get(), 1));
    drop(reserved(&mut pool, at(2_000), &budgets));
    assert_ne!(request(&mut pool, at(2_000)).request, first.request);
}

#[test]
fn a_lease_that_arrives_late_and_is_returned_is_not_accepted_when_it_arrives_again() {
    let budgets = [budget("b", Some(10_000), None)];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    let first = pool.take_lease_requests(at(0)).remove(0);
    let late = grant(&first, PRICE.get(), 1);
    pool.answer(at(0), WALL, answer(&first, LeaseOutcome::Unavailable));
    pool.answer(at(100), WALL, late.clone());
    assert!(matches!(reserve(&mut pool, at(2_000), &budgets), ReserveOutcome::NeedLease));
    let last = pool.take_reports(at(2_000)).remove(0);
    assert!(last.last, "it is returned unspent");
    pool.acknowledge_report(&last.lease, last.sequence);
    pool.answer(at(2_000), WALL, late);
    let outcome = reserve(&mut pool, at(2_000), &budgets);
    assert!(matches!(outcome, ReserveOutcome::NeedLease), "a returned lease was spent: {outcome:?}");
}

#[test]
fn a_lease_too_small_for_a_call_is_returned_before_another_is_requested() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    fetch(&mut pool, at(0), &budgets);
    let expensive = PricedCall { price: Micros::new(1_000_000), ..CALL };
    assert!(matches!(pool.reserve(at(0), WALL, &expensive, budgets.iter()), ReserveOutcome::NeedLease));
    let reports = pool.take_reports(at(0));
    assert!(reports.iter().any(|report| report.last && report.amount == Micros::ZERO), "{reports:?}");
    let request = pool.take_lease_requests(at(0)).remove(0);
    assert_eq!((request.minimum_amount.get(), request.amount.get()), (1_000_000, 5_000_000));
}

#[test]
fn an_idle_lease_is_returned_and_removed_once_acknowledged() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    fetch(&mut pool, at(0), &budgets);
    let reservation = reserved(&mut pool, at(0), &budgets);
    pool.expire_leases(at(20_000));
    assert_eq!(pool.take_reports(at(20_000)), [], "a call is in flight");
    pool.settle(at(20_000), reservation, Charge::Full);
    pool.expire_leases(at(29_999));
    pool.expire_leases(at(30_000));
    let reports = pool.take_reports(at(30_000));
    assert!(reports[0].last && reports[0].calls == 1, "{reports:?}");
    assert_eq!(pool.take_reports(at(50_000)), []);
    pool.resend_unanswered();
    assert_eq!(pool.take_reports(at(50_000)), reports);
    pool.acknowledge_report("lease-1", reports[0].sequence);
    assert!(pool.is_empty());
}

#[test]
fn a_lease_ends_before_its_deadline_and_open_reservations_count_as_spent() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    fetch(&mut pool, at(0), &budgets);
    let reservation = reserved(&mut pool, at(57_000), &budgets);
    assert!(matches!(reserve(&mut pool, at(58_000), &budgets), ReserveOutcome::NeedLease));
    pool.expire_leases(at(59_000));
    let reports = pool.take_reports(at(59_000));
    assert!(reports[0].last && reports[0].amount == PRICE, "{reports:?}");
    // It is too late for a refund, and nothing is spent twice.
    pool.settle(at(59_500), reservation, Charge::Nothing);
    pool.settle(at(59_500), Reservation { parts: vec![] }, Charge::Full);
    assert_eq!(pool.take_reports(at(70_000)), []);
}

#[test]
fn a_recalled_or_unwanted_lease_is_returned() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    fetch(&mut pool, at(0), &budgets);
    pool.return_lease(at(0), "lease-1");
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    assert!(pool.take_reports(at(0))[0].last);
    // The budget is removed while its request is unanswered.
    let request = pool.take_lease_requests(at(0)).remove(0);
    pool.apply(at(0), &policy(&[]));
    pool.answer(at(0), WALL, grant(&request, 9_000, 9));
    let reports = pool.take_reports(at(0));
    assert_eq!(reports.len(), 1);
    assert!(reports[0].last && reports[0].amount == Micros::ZERO);
}

#[test]
fn a_closed_pool_returns_its_leases_and_refuses_calls() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    fetch(&mut pool, at(0), &budgets);
    pool.close(at(1));
    assert_eq!(refused(reserve(&mut pool, at(1), &budgets)).reason, Reason::BudgetUnavailable);
    let reports = pool.take_reports(at(1));
    assert!(reports[0].last);
    assert!(!pool.is_empty());
    pool.acknowledge_report(&reports[0].lease, reports[0].sequence);
    assert!(pool.is_empty());
}

#[test]
fn a_lost_request_is_sent_again_with_the_same_number() {
    let budgets = [budget("b", Some(5_000_000), None)];
    let mut pool = pool(&budgets);
    assert!(matches!(reserve(&mut pool, at(0), &budgets), ReserveOutcome::NeedLease));
    let requests = pool.take_lease_requests(at(0));
    pool.resend_unanswered();
    assert_eq!(pool.take_lease_requests(at(0)), requests);
    // The ledger may answer both.
    pool.answer(at(0), WALL, grant(&requests[0], 9_000, 9));
    pool.answer(at(0), WALL, grant(&requests[0], 9_000, 9));
    assert_eq!(pool.leases().count(), 1);
}

/// Something that can happen to a pool; steps come in any order.
#[derive(Clone, Debug)]
enum Step {
    Reserve { price: u64, both: bool },
    Settle { which: prop::sample::Index, charge: Charge },
    Answer { part: u64, refuse: bool },
    Report { ack: bool },
    Reconnect,
    Recall,
    Policy { both: bool },
    Wait { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_u64, any::<bool>()).prop_map(|(price, both)| Step::Reserve { price: price * 700, both }),
        6 => (any::<prop::sample::Index>(), charge()).prop_map(|(which, charge)| Step::Settle { which, charge }),
        6 => (1..4_u64, prop::bool::weighted(0.2)).prop_map(|(part, refuse)| Step::Answer { part, refuse }),
        4 => any::<bool>().prop_map(|ack| Step::Report { ack }),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Recall),
        1 => any::<bool>().prop_map(|both| Step::Policy { both }),
        4 => (0..5_000_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

fn charge() -> impl Strategy<Value = Charge> {
    let stated = (0..2_000_u64).prop_map(|amount| Charge::Stated(Micros::new(amount)));
    prop_oneof![Just(Charge::Full), Just(Charge::Nothing), stated]
}

proptest! {
    #[test]
    fn all_spending_is_covered_and_reported(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let budgets = [budget("a", Some(20_000), None), budget("b", Some(9_000), Some(12))];
        let mut pool = pool(&budgets);
        let (mut now, mut reservations, mut granted) = (at(0), Vec::new(), HashMap::new());
        let mut reported: HashMap<String, SpendReport> = HashMap::new();
        for step in steps {
            match step {
                Step::Reserve { price, both } => {
                    let call = PricedCall { price: Micros::new(price), ..CALL };
                    let covering = if both { &budgets[..] } else { &budgets[..1] };
                    if let ReserveOutcome::Reserved(reservation) = pool.reserve(now, WALL, &call, covering.iter()) {
                        let expected = if price == 0 { usize::from(both) } else { covering.len() };
                        prop_assert_eq!(reservation.parts.len(), expected, "a call reserves from all budgets or none");
                        reservations.push(reservation);
                    }
                }
                Step::Settle { which, charge } if !reservations.is_empty() => {
                    let reservation = reservations.swap_remove(which.index(reservations.len()));
                    pool.settle(now, reservation, charge);
                }
                Step::Settle { .. } => {}
                Step::Answer { part, refuse } => {
                    for request in pool.take_lease_requests(now) {
                        let amount = (request.amount.get() / part).max(request.minimum_amount.get());
                        let calls = (request.calls / part).max(request.minimum_calls);
                        let outcome = LeaseOutcome::Exhausted { period_end: PERIOD_END };
                        let answer = if refuse { answer(&request, outcome) } else { grant(&request, amount, calls) };
                        granted.insert(format!("lease-{}", request.request), (amount, calls));
                        pool.answer(now, WALL, answer);
                    }
                }
                Step::Report { ack } => {
                    for report in pool.take_reports(now) {
                        check_report(&report, &reported, &granted)?;
                        if ack {
                            pool.acknowledge_report(&report.lease, report.sequence);
                        }
                        reported.insert(report.lease.clone(), report);
                    }
                }
                Step::Reconnect => pool.resend_unanswered(),
                Step::Recall => {
                    let first = pool.leases().next().map(|lease| lease.id().to_owned());
                    if let Some(lease) = first {
                        pool.return_lease(now, &lease);
                    }
                }
                Step::Policy { both } => pool.apply(now, &policy(if both { &budgets } else { &budgets[..1] })),
                Step::Wait { millis } => {
                    now = now.plus(Duration::from_millis(millis));
                    pool.expire_leases(now);
                }
            }
            pool.leases().for_each(lease::Lease::check);
        }
        // In the end every lease has exactly one last report.
        for reservation in reservations {
            pool.settle(now, reservation, Charge::Full);
        }
        pool.close(now);
        pool.resend_unanswered();
        for _ in 0..2 {
            for report in pool.take_reports(now) {
                check_report(&report, &reported, &granted)?;
                pool.acknowledge_report(&report.lease, report.sequence);
                reported.insert(report.lease.clone(), report);
            }
        }
        prop_assert!(pool.is_empty());
        prop_assert!(reported.values().all(|report| report.last));
    }
}

/// Checks that a report is covered by its lease, that its items sum up, and that its totals never decrease.
fn check_report(
    report: &SpendReport,
    reported: &HashMap<String, SpendReport>,
    granted: &HashMap<String, (u64, u64)>,
) -> Result<(), TestCaseError> {
    let (amount, calls) = granted[&report.lease];
    prop_assert!(report.amount.get() <= amount && report.calls <= calls);
    prop_assert_eq!(report.items.iter().map(|item| item.amount.get()).sum::<u64>(), report.amount.get());
    prop_assert_eq!(report.items.iter().map(|item| item.calls).sum::<u64>(), report.calls);
    if let Some(before) = reported.get(&report.lease) {
        prop_assert!(report == before || (report.sequence > before.sequence && !before.last));
        prop_assert!(report.amount >= before.amount && report.calls >= before.calls);
    }
    Ok(())
}
