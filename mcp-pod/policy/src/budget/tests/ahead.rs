//! Leases that are requested before a call needs them, in virtual time.

use std::collections::VecDeque;

use super::*;

/// How long the ledger takes to answer, in milliseconds.
const ROUND_TRIP: u64 = 700;

const FREE: PricedCall<'_> = PricedCall { price: Micros::ZERO, ..CALL };

/// A gateway with one budget, a ledger that answers after a while, and calls at a fixed pace.
struct Simulation {
    pool: LeasePool,
    budgets: [Budget; 1],
    /// Calls left in the budget.
    room: u64,
    /// Calls in each lease that was not returned.
    granted: HashMap<String, u64>,
    /// Requests on their way, with the time of the answer.
    asked: VecDeque<(u64, LeaseRequest)>,
    requests: usize,
    /// Calls that wait for a lease.
    waiting: u64,
    waited: u64,
    admitted: u64,
    denied: u64,
}

impl Simulation {
    fn new(calls: u64) -> Self {
        let budgets = [budget("b", None, Some(calls))];
        let pool = pool(&budgets);
        let (granted, asked, requests) = (HashMap::new(), VecDeque::new(), 0);
        Self { pool, budgets, room: calls, granted, asked, requests, waiting: 0, waited: 0, admitted: 0, denied: 0 }
    }

    fn attempt(&mut self, now: u64) -> bool {
        match self.pool.reserve(at(now), WALL, &FREE, self.budgets.iter()) {
            ReserveOutcome::Reserved(reservation) => {
                self.pool.settle(at(now), reservation, Charge::Full);
                self.admitted += 1;
            }
            ReserveOutcome::NeedLease => return false,
            ReserveOutcome::Denied(_) => self.denied += 1,
        }
        true
    }

    /// Lets a millisecond pass.
    fn step(&mut self, now: u64, call: bool) {
        if now.is_multiple_of(1_000) {
            self.pool.expire_leases(at(now));
        }
        while let Some((_, request)) = self.asked.pop_front_if(|(due, _)| *due <= now) {
            // As the ledger does: at most half of what is left.
            let portion = request.calls.min((self.room / 2).max(1));
            let outcome = if portion > self.room {
                answer(&request, LeaseOutcome::Exhausted { period_end: PERIOD_END })
            } else {
                self.room -= portion;
                self.granted.insert(format!("lease-{}", request.request), portion);
                grant(&request, 0, portion)
            };
            self.pool.answer(at(now), WALL, outcome);
            self.waiting -= (0..self.waiting).filter(|_| self.attempt(now)).count() as u64;
        }
        if call && !self.attempt(now) {
            self.waiting += 1;
            self.waited += 1;
        }
        for report in self.pool.take_reports(at(now)) {
            if report.last {
                let granted = self.granted.remove(&report.lease).expect("a lease that was granted");
                self.room += granted - report.calls;
            }
            self.pool.acknowledge_report(&report.lease, report.sequence);
        }
        if self.pool.has_new_request() {
            for request in self.pool.take_lease_requests(at(now)) {
                assert!(self.asked.is_empty(), "a second request is under way");
                self.requests += 1;
                self.asked.push_back((now + ROUND_TRIP, request));
            }
        }
    }
}

#[test]
fn calls_of_a_hot_budget_wait_for_the_first_lease_only() {
    let mut simulation = Simulation::new(200_000);
    for now in 0..60_000 {
        simulation.step(now, true);
    }
    println!("{} of 60000 calls waited, {} requests", simulation.waited, simulation.requests);
    assert!(simulation.requests > 2, "one lease is enough for all calls");
    assert_eq!(simulation.waited, ROUND_TRIP);
}

#[test]
fn a_budget_in_slow_use_requests_nothing_ahead_and_an_idle_one_nothing_at_all() {
    let mut simulation = Simulation::new(400);
    for now in 0..50_000 {
        simulation.step(now, now.is_multiple_of(1_000));
    }
    assert_eq!((simulation.requests, simulation.admitted), (1, 50));
    for now in 50_000..200_000 {
        simulation.step(now, false);
    }
    assert_eq!(simulation.requests, 1);
    assert!(simulation.pool.is_empty(), "an idle lease is returned");
}

#[test]
fn a_lease_that_is_refused_ahead_of_need_refuses_no_call() {
    let mut simulation = Simulation::new(1_000);
    for now in 0..30_000 {
        simulation.step(now, true);
        let Simulation { denied, admitted, .. } = simulation;
        assert!(denied == 0 || admitted == 1_000, "call {admitted} is refused");
    }
    assert_eq!(simulation.admitted, 1_000, "the whole budget can be used");
    assert!(simulation.denied > 0);
}

#[test]
fn a_request_ahead_that_gets_no_lease_refuses_nothing_and_is_not_repeated_at_once() {
    for outcome in [LeaseOutcome::Unavailable, LeaseOutcome::Exhausted { period_end: PERIOD_END }] {
        let budgets = [budget("b", None, Some(100))];
        let mut pool = pool(&budgets);
        let reserve = |pool: &mut LeasePool, now| pool.reserve(at(now), WALL, &FREE, budgets.iter());
        assert!(matches!(reserve(&mut pool, 0), ReserveOutcome::NeedLease));
        for request in pool.take_lease_requests(at(0)) {
            pool.answer(at(0), WALL, grant(&request, 0, 10));
        }
        for now in 1..=10 {
            let ReserveOutcome::Reserved(reservation) = reserve(&mut pool, now) else {
                panic!("no lease for call {now}")
            };
            pool.settle(at(now), reservation, Charge::Full);
            assert_eq!(pool.has_new_request(), now == 5, "call {now}");
            for request in pool.take_lease_requests(at(now)) {
                pool.answer(at(now), WALL, answer(&request, outcome.clone()));
            }
        }
        // The next call needs a lease, and the ledger decides about it.
        assert!(matches!(reserve(&mut pool, 11), ReserveOutcome::NeedLease), "{outcome:?}");
        assert!(pool.has_new_request());
    }
}
