//! A model of the fleet's money: the real books, the real commit protocol and the real lease pools, with operators, gateways,
//! messages and an API server around them. [`faults`] says how those fail.
//!
//! `stateright` visits every state that can be reached within the bounds, or our own walker takes random steps through larger ones.

// The functions of the model are methods, whether they need its bounds or not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::unused_self)]

use std::sync::atomic::Ordering;
use std::time::Instant;

mod defect;
mod drain;
mod faults;
mod fleet;
mod gateway;
mod operator;
mod shared;
mod state;
mod wire;

use defect::Defect;
use faults::Fault;
use fleet::{ALL_SPENT, Bounds, CONFLICT, DRAINS, FORFEITED, Fleet, SETTLED_ONCE, SPENT_IS_CHARGED, WITHIN_LIMIT};
use stateright::{Checker, HasDiscoveries, Model};

/// Two operators, two gateways and one budget of two calls.
fn bounds(attempts: u8, faults: u8, kinds: &[Fault]) -> Bounds {
    Bounds {
        operators: 2,
        gateways: 2,
        limits: vec![vec![2]],
        attempts,
        faults,
        kinds: kinds.to_vec(),
        times: vec![0],
        drain_one_in: Some(16),
        most_drain_steps: 60,
    }
}

const ALWAYS: [&str; 4] = [SPENT_IS_CHARGED, WITHIN_LIMIT, SETTLED_ONCE, DRAINS];

/// Visits every state within the bounds. Prints how many there are.
fn visit_all(name: &str, bounds: Bounds, reached: &[&'static str]) {
    let start = Instant::now();
    let checker = Fleet::new(bounds, None).checker().threads(2).spawn_bfs().join();
    report(name, &checker, start);
    for property in reached {
        assert!(checker.discovery(property).is_some(), "{name}: the model never gets to where {property}");
    }
}

/// Walks at random, again and again from the beginning, until this many states were visited. The seed decides every step.
///
/// This is not the simulation of `stateright`, which cannot print the path of a walk in which an action changed nothing.
fn walk(name: &str, bounds: Bounds, states: usize, seed: u64) {
    let start = Instant::now();
    let model = Fleet::new(bounds, None);
    let mut random = fastrand::Rng::with_seed(seed);
    let properties: Vec<_> = model.properties().into_iter().filter(|it| ALWAYS.contains(&it.name)).collect();
    let (mut visited, mut walks, mut longest) = (0, 0, 0);
    while visited < states {
        let mut state = model.init_states().remove(0);
        let mut path = Vec::new();
        loop {
            visited += 1;
            for property in &properties {
                let holds = (property.condition)(&model, &state);
                assert!(holds, "{name}, seed {seed}: violated: {}\n{state:#?}\n{path:?}", property.name);
            }
            let mut actions = Vec::new();
            model.actions(&state, &mut actions);
            random.shuffle(&mut actions);
            let next = actions.into_iter().find_map(|action| Some((action, model.next_state(&state, action)?)));
            let Some((action, next)) = next.filter(|_| path.len() < 400) else { break };
            path.push(action);
            state = next;
        }
        (walks, longest) = (walks + 1, longest.max(path.len()));
    }
    println!(
        "{name}, seed {seed}: {visited} states in {walks} walks of up to {longest} steps, drained from {} of them within {} \
         steps, {:.1} s",
        model.drained.load(Ordering::Relaxed),
        model.most_steps.load(Ordering::Relaxed),
        start.elapsed().as_secs_f32(),
    );
}

fn report(name: &str, checker: &impl Checker<Fleet>, start: Instant) {
    let model = checker.model();
    println!(
        "{name}: {} states, depth {}, drained from {} of them within {} steps, {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        model.drained.load(Ordering::Relaxed),
        model.most_steps.load(Ordering::Relaxed),
        start.elapsed().as_secs_f32(),
    );
    for property in ALWAYS {
        if let Some(path) = checker.discovery(property) {
            panic!("{name}: violated: {property}\n{:#?}\n{:?}", path.last_state(), path.clone().into_actions());
        }
    }
}

/// Asserts that the model finds a defect, by a state that violates this property.
fn finds(defect: Defect, bounds: Bounds, property: &'static str) {
    let bounds = Bounds { drain_one_in: (property == DRAINS).then_some(1), ..bounds };
    let checker = Fleet::new(bounds, Some(defect)).checker().finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.threads(2).spawn_bfs().join();
    let found: Vec<_> = ALWAYS.into_iter().filter(|property| checker.discovery(property).is_some()).collect();
    println!("{defect:?}: {found:?} after {} states", checker.unique_state_count());
    assert!(found.contains(&property), "{defect:?} violates {found:?}");
}

fn larger_fleet() -> Bounds {
    Bounds {
        gateways: 3,
        limits: vec![vec![6, 3], vec![4, 5]],
        times: vec![0, 1, 2, 3],
        most_drain_steps: 400,
        ..bounds(30, 6, &Fault::ALL)
    }
}

/// One operator and one gateway, and time that passes until leases are overdue in the next period.
fn one_of_each(attempts: u8) -> Bounds {
    Bounds { operators: 1, gateways: 1, times: vec![0, 3], ..bounds(attempts, 0, &[]) }
}

#[test]
fn every_order_of_messages_and_writes_is_safe() {
    visit_all("no fault", bounds(4, 0, &[]), &[ALL_SPENT, CONFLICT]);
    visit_all("a limit that is lowered", Bounds { limits: vec![vec![2, 1]], ..bounds(4, 0, &[]) }, &[CONFLICT]);
    visit_all("a limit that is raised", Bounds { limits: vec![vec![1, 2]], ..bounds(4, 0, &[]) }, &[CONFLICT]);
    // Leases of two calls: the first call requests the next lease.
    visit_all("a lease ahead of need", Bounds { limits: vec![vec![5]], ..bounds(5, 0, &[]) }, &[CONFLICT]);
    visit_all("the period ends", Bounds { times: vec![0, 3], ..bounds(2, 0, &[]) }, &[FORFEITED]);
}

#[test]
fn every_fault_is_safe() {
    visit_all("any fault, 3 attempts", bounds(3, 1, &Fault::ALL), &[FORFEITED, CONFLICT]);
    let ahead = Bounds { limits: vec![vec![5]], ..bounds(3, 1, &Fault::ALL) };
    visit_all("a lease ahead of need, any fault, 3 attempts", ahead, &[FORFEITED, CONFLICT]);
    for fault in [Fault::Store, Fault::Duplicate, Fault::Unsent] {
        visit_all(&format!("{fault:?}, 4 attempts"), bounds(4, 1, &[fault]), &[ALL_SPENT, CONFLICT]);
    }
}

#[test]
fn random_walks_of_a_larger_fleet_are_safe() {
    walk("3 gateways and 2 budgets", larger_fleet(), 300_000, 1);
}

#[test]
#[ignore = "takes minutes: `cargo xtask test governors`"]
fn every_fault_is_safe_with_more_attempts() {
    for fault in [Fault::GatewayCrash, Fault::Partition, Fault::ClockStep] {
        visit_all(&format!("{fault:?}, 4 attempts"), bounds(4, 1, &[fault]), &[ALL_SPENT, CONFLICT]);
    }
}

#[test]
#[ignore = "takes minutes: `cargo xtask test governors`"]
fn every_pair_of_faults_is_safe() {
    visit_all("any two faults, 2 attempts", bounds(2, 2, &Fault::ALL), &[FORFEITED, CONFLICT]);
}

#[test]
#[ignore = "takes minutes: `cargo xtask test governors`"]
fn long_random_walks_of_a_larger_fleet_are_safe() {
    for seed in 0..4 {
        walk("3 gateways and 2 budgets", larger_fleet(), 2_000_000, seed);
    }
}

#[test]
fn a_refund_on_expiry_is_found() {
    finds(Defect::RefundOnExpiry, one_of_each(3), SPENT_IS_CHARGED);
}

#[test]
fn a_grant_before_the_write_is_found() {
    finds(Defect::GrantBeforeWrite, bounds(3, 0, &[]), SPENT_IS_CHARGED);
}

#[test]
fn a_report_that_is_settled_twice_is_found() {
    finds(Defect::DoubleSettle, bounds(4, 1, &[Fault::Duplicate]), SETTLED_ONCE);
}

#[test]
fn a_write_by_a_stale_leader_is_found() {
    finds(Defect::WriteWithoutCompareAndSwap, bounds(4, 0, &[]), SPENT_IS_CHARGED);
}

#[test]
fn a_second_lease_for_a_repeated_request_is_found() {
    let one = Bounds { gateways: 1, ..bounds(1, 1, &[Fault::OperatorCrash]) };
    finds(Defect::SecondLeaseForRepeatedRequest, one, DRAINS);
}

#[test]
fn a_report_from_another_epoch_that_is_accepted_is_found() {
    let one = Bounds { gateways: 1, ..bounds(3, 2, &[Fault::GatewayCrash, Fault::ForeignReport]) };
    finds(Defect::ReportFromAnotherEpoch, one, SPENT_IS_CHARGED);
}

#[test]
fn a_refund_into_the_next_period_is_found() {
    finds(Defect::RefundIntoNextPeriod, one_of_each(6), WITHIN_LIMIT);
}

#[test]
fn an_answer_from_a_stale_copy_is_found() {
    finds(Defect::AnswerFromStaleCopy, bounds(4, 1, &[Fault::Duplicate]), DRAINS);
}
