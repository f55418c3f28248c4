//! A model of a tenant's gateways and their leaders: the real protocol, and messages, clocks and faults around it.
//!
//! `stateright` visits every state that can be reached within the bounds, or our own walker takes random steps through
//! larger ones. [`defect`] lists the mistakes that the model is known to find.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Instant;

mod defect;
mod fleet;
mod settle;
mod state;

use defect::Defect;
use fleet::{ALWAYS, Bounds, Fault, Fleet, MOVED, ONE_HOME, RECOVERED, SETTLES, SHARED};
use stateright::{Checker, Model};

/// Two gateways, of which the first is the home of everybody at the start.
fn bounds(beats: u8, faults: u8, kinds: &[Fault]) -> Bounds {
    Bounds {
        gateways: 2,
        places: 2,
        beats,
        time: 5,
        faults,
        kinds: kinds.to_vec(),
        under_way: 2,
        changes: 1,
        releases: false,
        settle_one_in: Some(16),
    }
}

/// One of two gateways is the home of everybody, and may give its lease up.
fn one_place(beats: u8) -> Bounds {
    Bounds { places: 1, changes: 2, releases: true, ..bounds(beats, 0, &[]) }
}

/// Visits every state within the bounds. Prints how many there are.
fn visit_all(name: &str, bounds: Bounds, reached: &[&'static str]) {
    let start = Instant::now();
    let checker = Fleet { bounds, defect: None }.checker().threads(2).spawn_dfs().join();
    println!(
        "{name}: {} states, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f32()
    );
    for property in ALWAYS {
        if let Some(path) = checker.discovery(property) {
            panic!("{name}: violated: {property}\n{:#?}\n{:#?}", path.last_state(), path.clone().into_actions());
        }
    }
    for property in reached {
        assert!(checker.discovery(property).is_some(), "{name}: the model never gets to where {property}");
    }
}

/// Walks at random, again and again from the beginning, until this many states were visited or one violates a property.
/// The seed decides every step. Returns the property, and what led to it.
fn walk(name: &str, model: &Fleet, states: usize, seed: u64) -> Option<(&'static str, String)> {
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let properties: Vec<_> = model.properties().into_iter().filter(|it| ALWAYS.contains(&it.name)).collect();
    let (mut visited, mut walks) = (0, 0);
    while visited < states {
        let mut state = model.init_states().remove(0);
        let mut path = Vec::new();
        loop {
            visited += 1;
            if let Some(violated) = properties.iter().find(|property| !(property.condition)(model, &state)) {
                println!("{name}, seed {seed}: {} is violated after {visited} states", violated.name);
                return Some((violated.name, format!("{state:#?}\n{path:?}")));
            }
            let mut actions = Vec::new();
            model.actions(&state, &mut actions);
            if actions.is_empty() {
                break;
            }
            let action = actions.swap_remove(random.usize(..actions.len()));
            state = model.next_state(&state, action)?;
            path.push(action);
        }
        walks += 1;
    }
    println!("{name}, seed {seed}: {visited} states in {walks} walks, {:.1} s", start.elapsed().as_secs_f32());
    None
}

fn walk_safely(states: usize, seed: u64) {
    let violated = walk("4 gateways", &Fleet { bounds: larger_fleet(), defect: None }, states, seed);
    assert!(violated.is_none(), "violated: {violated:#?}");
}

/// Asserts that random walks find a defect, by a state that violates this property.
fn finds(defect: Defect, bounds: Bounds, property: &'static str) {
    let bounds = Bounds { settle_one_in: (property == SETTLES).then_some(1), ..bounds };
    let found = walk(&format!("{defect:?}"), &Fleet { bounds, defect: Some(defect) }, 5_000_000, 1);
    assert_eq!(found.map(|(found, _)| found), Some(property));
}

/// Few gateways, on which a defect shows soon.
fn small(kinds: &[Fault]) -> Bounds {
    Bounds { gateways: 3, places: 3, time: 12, under_way: 5, changes: 3, ..bounds(30, 3, kinds) }
}

/// Four gateways and long runs with all kinds of faults.
fn larger_fleet() -> Bounds {
    Bounds {
        gateways: 4,
        places: 4,
        time: 40,
        under_way: 6,
        changes: 8,
        releases: true,
        ..bounds(160, 16, &Fault::ALL)
    }
}

#[test]
fn every_order_of_messages_is_safe() {
    visit_all("no fault, 4 beats", bounds(4, 0, &[]), &[MOVED, SHARED]);
}

#[test]
fn every_order_of_messages_is_safe_if_one_gateway_is_home_of_all() {
    visit_all("no fault, 3 beats, one place", one_place(3), &[MOVED]);
}

#[test]
fn every_fault_is_safe() {
    visit_all("any fault, 3 beats", Bounds { time: 4, changes: 0, ..bounds(3, 1, &Fault::ALL) }, &[RECOVERED]);
}

#[test]
fn random_walks_of_a_larger_fleet_are_safe() {
    walk_safely(300_000, 1);
}

#[test]
fn random_walks_are_safe_if_there_are_fewer_places_than_gateways() {
    for places in [1, 2] {
        let model = Fleet { bounds: Bounds { places, ..larger_fleet() }, defect: None };
        let violated = walk(&format!("4 gateways, {places} places"), &model, 150_000, 1);
        assert!(violated.is_none(), "violated: {violated:#?}");
    }
}

#[test]
#[ignore = "takes minutes: `cargo xtask test governors`"]
fn every_order_of_more_messages_is_safe() {
    visit_all("no fault, 5 beats", bounds(5, 0, &[]), &[MOVED, SHARED]);
    visit_all("no fault, 4 beats, one place", one_place(4), &[MOVED]);
}

#[test]
#[ignore = "takes minutes: `cargo xtask test governors`"]
fn every_fault_is_safe_with_more_beats() {
    visit_all("any fault, 3 beats, and a gateway that drains", bounds(3, 1, &Fault::ALL), &[RECOVERED]);
    for fault in Fault::ALL {
        let bounds = Bounds { time: 4, changes: 0, ..bounds(4, 1, &[fault]) };
        visit_all(&format!("{fault:?}, 4 beats"), bounds.clone(), &[MOVED, SHARED]);
        visit_all(&format!("{fault:?}, 4 beats, one place"), Bounds { places: 1, changes: 1, ..bounds }, &[]);
    }
}

#[test]
#[ignore = "takes minutes: `cargo xtask test governors`"]
fn long_random_walks_of_a_larger_fleet_are_safe() {
    for seed in 0..4 {
        walk_safely(2_000_000, seed);
    }
}

#[test]
fn a_lease_that_counts_from_the_receipt_of_the_answer_is_found() {
    finds(Defect::LeaseFromReceipt, small(&[]), ONE_HOME);
}

#[test]
fn an_acknowledgement_before_calls_stop_is_found() {
    finds(Defect::AcknowledgeBeforePreparing, small(&[]), ONE_HOME);
}

#[test]
fn a_lease_that_is_continued_after_its_end_is_found() {
    finds(Defect::ContinueEndedLease, small(&[]), ONE_HOME);
}

#[test]
fn a_leader_that_trusts_clocks_to_run_equally_fast_is_found() {
    finds(Defect::NoMargin, small(&[Fault::SlowClock]), ONE_HOME);
}

#[test]
fn a_lease_that_is_taken_away_because_a_stream_ended_is_found() {
    finds(Defect::EndedWithTheStream, small(&[Fault::Lose]), ONE_HOME);
}

#[test]
fn a_new_leader_that_does_not_wait_for_earlier_leases_is_found() {
    finds(Defect::NoRecovery, small(&[Fault::LeaderEnds]), ONE_HOME);
}

#[test]
fn an_answer_of_an_earlier_leader_that_is_accepted_is_found() {
    finds(Defect::AnswerOfEarlierTerm, small(&[Fault::LeaderEnds]), ONE_HOME);
}

#[test]
fn a_view_that_replaces_one_that_was_prepared_for_is_found() {
    finds(Defect::ForgetPreparedViews, small(&[Fault::LeaderEnds]), ONE_HOME);
}

#[test]
fn a_member_that_is_never_told_to_apply_its_view_is_found() {
    finds(Defect::NeverApply, small(&[]), SETTLES);
}
