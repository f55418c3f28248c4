//! What gateways and leader do in the cases that occur every day. `tests/model` has the rest.
#![allow(clippy::unwrap_used)]

use mcp_fleet_homes::gateway::Gateway;
use mcp_fleet_homes::leader::{Leader, Times};
use mcp_fleet_homes::message::Instruction;
use mcp_fleet_homes::view::Member;

const TIMES: Times = Times { shared: 15_000, sole: 60_000, earlier: 60_000, margin: 1_000 };

fn gateway(pod: &str, epoch: &str, leader: &Leader) -> Gateway {
    let mut gateway = Gateway::new(Member { pod_uid: pod.into(), epoch: epoch.into() });
    gateway.connect(leader.term());
    gateway
}

fn first_leader() -> Leader {
    let mut leader = Leader::new(1, 0, TIMES, 3);
    leader.no_others_run();
    leader
}

/// Sends one beat and delivers the answer.
fn beat(leader: &mut Leader, gateway: &mut Gateway, now: u64, willing: bool) -> Instruction {
    let beat = gateway.beat(now, willing);
    let answer = leader.receive(now, gateway.member(), beat).unwrap();
    gateway.receive(now, answer.clone());
    answer.instruction
}

/// Lets all gateways beat until none has anything new to do.
fn settle(leader: &mut Leader, gateways: &mut [&mut Gateway], now: u64) {
    for _ in 0..4 {
        for gateway in &mut *gateways {
            beat(leader, gateway, now, true);
        }
    }
}

/// Returns how many of 100 principals are at home at a gateway.
fn at_home(gateway: &Gateway, now: u64) -> usize {
    (0..100).filter(|principal| gateway.admits(now, &format!("principal-{principal}"))).count()
}

#[test]
fn the_only_gateway_is_everybodys_home_after_one_beat() {
    let mut leader = first_leader();
    let mut only = gateway("a", "1", &leader);
    assert_eq!(at_home(&only, 0), 0);
    beat(&mut leader, &mut only, 0, true);
    assert_eq!(at_home(&only, 0), 100);
    assert_eq!((at_home(&only, TIMES.sole - 1), at_home(&only, TIMES.sole)), (100, 0), "until its lease ends");
}

#[test]
fn a_gateway_that_joins_takes_over_only_after_the_others_have_stopped() {
    let mut leader = first_leader();
    let (mut a, mut b) = (gateway("a", "1", &leader), gateway("b", "1", &leader));
    beat(&mut leader, &mut a, 0, true);
    assert_eq!(beat(&mut leader, &mut b, 10, true), Instruction::Wait);
    assert!(matches!(beat(&mut leader, &mut a, 20, true), Instruction::Prepare(_)));
    let kept = at_home(&a, 20);
    assert!((1..100).contains(&kept), "it stops to admit those that move, and no others");
    assert_eq!(beat(&mut leader, &mut b, 30, true), Instruction::Wait, "the leader does not know that yet");
    beat(&mut leader, &mut a, 40, true);
    beat(&mut leader, &mut b, 50, true);
    assert_eq!((at_home(&a, 50), at_home(&b, 50)), (kept, 100 - kept));
}

#[test]
fn a_gateway_that_drains_hands_over_without_waiting_for_its_lease() {
    let mut leader = first_leader();
    let (mut a, mut b) = (gateway("a", "1", &leader), gateway("b", "1", &leader));
    settle(&mut leader, &mut [&mut a, &mut b], 0);
    beat(&mut leader, &mut a, 10, false);
    assert_eq!(at_home(&a, 10), 0);
    beat(&mut leader, &mut a, 20, false);
    beat(&mut leader, &mut b, 30, true);
    assert!(at_home(&b, 30) < 100, "it prepares first");
    beat(&mut leader, &mut b, 40, true);
    assert_eq!(at_home(&b, 40), 100);
}

#[test]
fn the_last_gateway_goes_on_while_it_drains_until_there_is_another_one() {
    let mut leader = first_leader();
    let (mut a, mut b) = (gateway("a", "1", &leader), gateway("b", "1", &leader));
    for _ in 0..3 {
        beat(&mut leader, &mut a, 0, false);
    }
    assert_eq!(at_home(&a, 0), 0, "one that never was willing is no home");
    settle(&mut leader, &mut [&mut a], 0);
    for _ in 0..3 {
        beat(&mut leader, &mut a, 10, false);
    }
    assert_eq!(at_home(&a, 10), 100);
    beat(&mut leader, &mut b, 20, true);
    beat(&mut leader, &mut a, 30, false);
    assert_eq!((at_home(&a, 30), at_home(&b, 30)), (0, 0));
    beat(&mut leader, &mut a, 40, false);
    beat(&mut leader, &mut b, 50, true);
    assert_eq!((at_home(&a, 50), at_home(&b, 50)), (0, 100));
}

#[test]
fn a_gateway_that_gives_its_lease_up_is_not_waited_for() {
    let mut leader = first_leader();
    let (mut a, mut b) = (gateway("a", "1", &leader), gateway("b", "1", &leader));
    settle(&mut leader, &mut [&mut a], 0);
    assert_eq!(leader.others_have_leases(0, b.member()), TIMES.ended_after(TIMES.sole));
    a.release();
    assert_eq!(at_home(&a, 0), 0);
    beat(&mut leader, &mut a, 10, false);
    assert_eq!(leader.others_have_leases(10, b.member()), 0);
    beat(&mut leader, &mut b, 20, true);
    assert_eq!(at_home(&b, 20), 100);
}

#[test]
fn a_gateway_that_is_one_too_many_is_no_home_until_another_one_leaves() {
    let mut leader = Leader::new(1, 0, TIMES, 1);
    leader.no_others_run();
    let (mut a, mut b) = (gateway("b", "1", &leader), gateway("a", "1", &leader));
    settle(&mut leader, &mut [&mut a], 0);
    settle(&mut leader, &mut [&mut a, &mut b], 10);
    assert_eq!((at_home(&a, 10), at_home(&b, 10)), (100, 0));
    beat(&mut leader, &mut a, 20, false);
    settle(&mut leader, &mut [&mut b], 20);
    assert_eq!((at_home(&a, 20), at_home(&b, 20)), (0, 0), "the first has stopped, and has not told so yet");
    beat(&mut leader, &mut a, 30, false);
    beat(&mut leader, &mut a, 40, false);
    beat(&mut leader, &mut b, 50, true);
    assert_eq!((at_home(&a, 50), at_home(&b, 50)), (0, 100));
}

#[test]
fn the_principals_of_a_lost_gateway_wait_for_the_end_of_its_lease() {
    let mut leader = first_leader();
    let (mut a, mut b) = (gateway("a", "1", &leader), gateway("b", "1", &leader));
    settle(&mut leader, &mut [&mut a, &mut b], 0);
    let end = TIMES.ended_after(TIMES.shared);
    for now in (1_000..=end).step_by(1_000) {
        beat(&mut leader, &mut b, now, true);
        assert!(now == end || at_home(&b, now) < 100);
    }
    beat(&mut leader, &mut b, end, true);
    assert_eq!((at_home(&a, end), at_home(&b, end)), (0, 100));
}

#[test]
fn a_gateway_that_has_ended_is_not_waited_for() {
    let mut leader = first_leader();
    let mut before = gateway("a", "1", &leader);
    beat(&mut leader, &mut before, 0, true);
    let mut after = gateway("a", "2", &leader);
    assert_eq!(beat(&mut leader, &mut after, 10, true), Instruction::Wait);
    leader.ended(before.member());
    beat(&mut leader, &mut after, 20, true);
    assert_eq!(at_home(&after, 20), 100);
}

#[test]
fn a_gateway_that_ends_without_a_trace_is_waited_for() {
    let mut leader = first_leader();
    let mut before = gateway("a", "1", &leader);
    beat(&mut leader, &mut before, 0, true);
    let mut after = gateway("b", "1", &leader);
    let end = TIMES.ended_after(TIMES.sole);
    beat(&mut leader, &mut after, end - 1, true);
    assert_eq!((at_home(&before, TIMES.sole - 1), at_home(&after, end - 1)), (100, 0));
    beat(&mut leader, &mut after, end, true);
    assert_eq!(at_home(&after, end), 100);
}

#[test]
fn a_change_of_the_leader_interrupts_no_gateway() {
    let mut leader = first_leader();
    let (mut a, mut b) = (gateway("a", "1", &leader), gateway("b", "1", &leader));
    settle(&mut leader, &mut [&mut a, &mut b], 0);
    let before = (at_home(&a, 0), at_home(&b, 0));
    let mut leader = Leader::new(2, 5_000, TIMES, 3);
    for now in [5_000, 6_000, 7_000, 8_000] {
        for gateway in [&mut a, &mut b] {
            gateway.connect(2);
            beat(&mut leader, gateway, now, true);
        }
        assert_eq!((at_home(&a, now), at_home(&b, now)), before);
    }
    assert_eq!(leader.current().unwrap().id.term, 2);
}

#[test]
fn a_gateway_that_is_lost_with_the_leader_is_waited_for_as_long_as_with_a_leader() {
    let mut leader = first_leader();
    let (mut a, mut b) = (gateway("a", "1", &leader), gateway("b", "1", &leader));
    settle(&mut leader, &mut [&mut a, &mut b], 0);
    let start = 5_000;
    let mut leader = Leader::new(2, start, TIMES, 3);
    b.connect(2);
    let end = start + TIMES.ended_after(TIMES.shared);
    for now in (start..end).step_by(1_000) {
        beat(&mut leader, &mut b, now, true);
        assert!(at_home(&b, now) < 100);
    }
    settle(&mut leader, &mut [&mut b], end);
    assert_eq!((at_home(&a, end), at_home(&b, end)), (0, 100));
}

#[test]
fn a_gateway_without_a_lease_waits_for_a_new_leader_to_know_all_homes() {
    let mut leader = Leader::new(2, 0, TIMES, 3);
    let mut new = gateway("b", "1", &leader);
    let end = TIMES.ended_after(TIMES.sole);
    assert_eq!(beat(&mut leader, &mut new, end - 1, true), Instruction::Wait);
    assert!(matches!(beat(&mut leader, &mut new, end, true), Instruction::Apply(_)));
}

#[test]
fn a_gateway_that_is_cut_off_stays_the_only_one() {
    let mut leader = first_leader();
    let mut only = gateway("a", "1", &leader);
    beat(&mut leader, &mut only, 0, true);
    let later = TIMES.shared * 2;
    assert_eq!(beat(&mut leader, &mut only, later, true), Instruction::Keep);
    assert_eq!(at_home(&only, later + TIMES.sole - 1), 100);
}

#[test]
fn an_earlier_leader_is_not_listened_to() {
    let leader = Leader::new(3, 0, TIMES, 3);
    let mut gateway = gateway("a", "1", &leader);
    assert!(!gateway.connect(2));
    assert_eq!(gateway.term(), 3);
}
