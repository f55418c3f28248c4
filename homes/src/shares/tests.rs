#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn member(number: usize) -> Member {
    Member { pod_uid: format!("{number}").into(), epoch: "1".into() }
}

/// Gateways as they act by what the leader gives them.
struct World {
    shares: Shares,
    limit: u32,
    now: u64,
    /// Of each gateway: its share, what it uses, the number of its last beat and of the last whose answer it has accepted.
    gateways: Vec<(u32, u32, u64, u64)>,
    /// Answers under way: gateway, number and share.
    answers: Vec<(usize, u64, u32)>,
}

impl World {
    fn new(limit: u32, gateways: usize) -> Self {
        Self { shares: Shares::default(), limit, now: 0, gateways: vec![(0, 0, 0, 0); gateways], answers: Vec::new() }
    }

    fn beat(&mut self, number: usize, wanted: u32) {
        let (share, used, beat, accepted) = &mut self.gateways[number];
        *beat += 1;
        let demand = Demand { limit: self.limit, share: *share, used: *used, wanted };
        let given = self.shares.receive(self.now, &member(number), (*beat, *accepted), demand, true);
        self.answers.push((number, *beat, given));
    }

    fn accept(&mut self, index: usize) {
        let (gateway, number, given) = self.answers.remove(index);
        let (share, _, _, accepted) = &mut self.gateways[gateway];
        if number > *accepted {
            (*share, *accepted) = (given, number);
        }
    }

    /// Lets each gateway send a beat and accept the answer, so many times.
    fn settle(&mut self, wanted: &[u32], rounds: usize) {
        for _ in 0..rounds {
            for (number, wanted) in wanted.iter().enumerate() {
                self.beat(number, *wanted);
                self.accept(self.answers.len() - 1);
            }
        }
    }

    fn given(&self) -> Vec<u32> {
        self.gateways.iter().map(|(share, ..)| *share).collect()
    }
}

#[test]
fn one_busy_gateway_gets_nearly_all_and_gives_it_back() {
    let mut world = World::new(100, 3);
    world.settle(&[0, 0, 0], 4);
    assert_eq!(world.given(), [34, 33, 33], "nobody wants anything");
    world.settle(&[1000, 0, 0], 4);
    assert_eq!(world.given(), [90, 5, 5]);
    world.settle(&[1000, 1000, 0], 4);
    assert_eq!(world.given(), [45, 45, 10]);
    world.settle(&[20, 1000, 1000], 4);
    assert_eq!(world.given(), [20, 40, 40]);
}

#[test]
fn a_small_limit_goes_to_who_wants_it() {
    let mut world = World::new(2, 3);
    world.settle(&[0, 0, 5], 4);
    assert_eq!(world.given(), [0, 0, 2]);
    world.settle(&[1, 0, 5], 4);
    assert_eq!(world.given(), [1, 0, 1]);
}

#[test]
fn what_cannot_be_divided_changes_hands_if_several_want_it() {
    let mut world = World::new(1, 2);
    let mut holders = Vec::new();
    for turn in 0..4 {
        world.now = turn * TURN;
        // However much they want.
        world.settle(&[1, 50], 4);
        holders.push(world.given());
    }
    assert_eq!(holders, [[1, 0], [0, 1], [1, 0], [0, 1]]);
}

#[test]
fn what_cannot_be_divided_stays_until_another_wants_it() {
    let mut world = World::new(1, 2);
    for (wanted, expected) in [([0, 0], [1, 0]), ([0, 1], [0, 1]), ([0, 0], [0, 1]), ([1, 0], [1, 0]), ([0, 0], [1, 0])]
    {
        world.settle(&wanted, 4);
        assert_eq!(world.given(), expected, "{wanted:?}");
    }
}

#[test]
fn gateways_hear_at_once_of_one_without_a_share() {
    let mut world = World::new(1, 2);
    let concerned = |world: &World, from| world.shares.concerned(0, &member(from), true).cloned().collect::<Vec<_>>();
    world.settle(&[1, 0], 4);
    assert_eq!(concerned(&world, 0), []);
    world.settle(&[0, 0], 1);
    world.beat(1, 1);
    assert_eq!(concerned(&world, 1), [member(0)], "who has it");
    world.settle(&[0], 2);
    assert_eq!(concerned(&world, 0), [member(1)], "who can get it");
    world.settle(&[0, 1], 1);
    assert_eq!((world.given(), concerned(&world, 1)), (vec![0, 1], vec![]));
}

#[test]
fn gateways_hear_at_once_of_one_that_lacks_some_of_a_limit() {
    let mut world = World::new(10, 2);
    let concerned = |world: &World, from| world.shares.concerned(0, &member(from), true).cloned().collect::<Vec<_>>();
    world.settle(&[0, 0], 4);
    assert_eq!((world.given(), concerned(&world, 0)), (vec![5, 5], vec![]));
    world.beat(0, 8);
    assert_eq!(concerned(&world, 0), [member(1)], "it has more than its part");
    world.beat(1, 0);
    world.accept(1);
    world.beat(1, 0);
    assert_eq!(concerned(&world, 1), [member(0)], "what it has accepted less of is free");
    world.settle(&[8, 0], 1);
    assert!(world.given()[0] >= 8, "{:?}", world.given());
    // Two that lack some do not ask each other in turn while nothing can be given.
    let mut unknown = World::new(10, 2);
    unknown.gateways = vec![(3, 0, 0, 0), (3, 0, 0, 0)];
    for number in [0, 1, 0, 1] {
        let (share, used, beat, accepted) = &mut unknown.gateways[number];
        *beat += 1;
        let demand = Demand { limit: 10, share: *share, used: *used, wanted: 8 };
        assert_eq!(unknown.shares.receive(0, &member(number), (*beat, *accepted), demand, false), 3);
        assert_eq!(unknown.shares.concerned(0, &member(number), false).count(), 0);
    }
    // Both want all of it, and each has its part.
    world.settle(&[10, 10], 4);
    assert_eq!((concerned(&world, 0), concerned(&world, 1)), (vec![], vec![]));
}

#[test]
fn shares_that_are_not_accepted_are_remembered_as_one() {
    let mut world = World::new(10, 2);
    world.settle(&[5, 5], 4);
    for _ in 0..100 {
        world.beat(0, 0);
    }
    assert!(world.shares.gateways[&member(0)].shares.len() <= MAX_GIVEN);
    // It may still act by what it had.
    world.settle(&[0, 10], 0);
    world.beat(1, 10);
    world.accept(world.answers.len() - 1);
    assert_eq!(world.given()[1], 5);
}

#[test]
fn nobody_gets_what_another_may_still_use() {
    let mut world = World::new(10, 2);
    world.settle(&[100, 0], 4);
    assert_eq!(world.given(), [9, 1]);
    // Its calls go on with a smaller share.
    world.gateways[0].1 = 9;
    world.settle(&[9, 100], 4);
    assert_eq!(world.given(), [5, 1]);
    world.gateways[0].1 = 5;
    world.settle(&[9, 100], 4);
    assert_eq!(world.given(), [5, 5]);
}

#[test]
fn a_new_leader_gives_nothing_until_it_knows_all() {
    let mut shares = Shares::default();
    let demand = Demand { limit: 10, share: 3, used: 0, wanted: 10 };
    assert_eq!(shares.receive(0, &member(0), (8, 7), demand, false), 3);
    assert_eq!(shares.receive(0, &member(0), (9, 8), demand, true), 10);
}

#[test]
fn a_lower_limit_is_respected_before_anybody_gets_more() {
    let mut world = World::new(100, 2);
    world.settle(&[100, 100], 4);
    world.limit = 10;
    world.beat(0, 100);
    world.accept(0);
    assert_eq!(world.given(), [0, 50], "the other may still use more than all of it");
    world.settle(&[100, 100], 4);
    assert_eq!(world.given(), [5, 5]);
}

#[derive(Clone, Debug)]
enum Step {
    Beat(usize, u32),
    /// Answers arrive late, in any order, or not at all.
    Accept(usize),
    Lose(usize),
    Begin(usize, u32),
    End(usize, u32),
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = 0..3_usize;
    prop_oneof![
        4 => (gateway.clone(), 0..30_u32).prop_map(|(gateway, wanted)| Step::Beat(gateway, wanted)),
        4 => (0..8_usize).prop_map(Step::Accept),
        1 => (0..8_usize).prop_map(Step::Lose),
        2 => (gateway.clone(), 1..10_u32).prop_map(|(gateway, calls)| Step::Begin(gateway, calls)),
        2 => (gateway.clone(), 1..10_u32).prop_map(|(gateway, calls)| Step::End(gateway, calls)),
        1 => gateway.prop_map(Step::Crash),
    ]
}

proptest! {
    #[test]
    fn what_gateways_use_never_exceeds_the_limit(limit in 1..40_u32, steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new(limit, 3);
        for step in steps {
            match step {
                Step::Beat(gateway, wanted) => world.beat(gateway, wanted),
                Step::Accept(index) if index < world.answers.len() => world.accept(index),
                Step::Lose(index) if index < world.answers.len() => drop(world.answers.remove(index)),
                Step::Begin(gateway, calls) => {
                    let (share, used, ..) = &mut world.gateways[gateway];
                    // As the gateway does: no more than its share.
                    *used = (*used + calls).min((*share).max(*used));
                }
                Step::End(gateway, calls) => {
                    let used = &mut world.gateways[gateway].1;
                    *used = used.saturating_sub(calls);
                }
                Step::Crash(gateway) => {
                    drop(world.shares.gateways.remove(&member(gateway)));
                    world.answers.retain(|(of, ..)| *of != gateway);
                    world.gateways[gateway] = (0, 0, 0, 0);
                }
                Step::Accept(_) | Step::Lose(_) => {}
            }
            let used: u32 = world.gateways.iter().map(|(_, used, ..)| used).sum();
            prop_assert!(used <= limit, "{used} of {limit}");
        }
        // Whoever wants all of it gets it, within few beats.
        world.answers.clear();
        world.gateways.iter_mut().for_each(|(_, used, ..)| *used = 0);
        world.settle(&[1000, 0, 0], 4);
        prop_assert!(world.given()[0] * 10 >= limit * 8, "{:?} of {limit}", world.given());
    }
}
