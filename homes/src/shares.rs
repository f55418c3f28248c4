//! How a limit of a tenant or of one of its servers is divided among the gateways that share the tenant's principals.
//!
//! Each gateway applies its *share* of the limit to its own calls. The leader gives shares with its answers to beats, so that at
//! any time the shares by which gateways act add up to no more than the limit: a gateway gets more only after others have
//! accepted less, or have no lease any more. What gateways want decides how the limit is divided; what nobody wants is divided
//! equally, so that a gateway can serve a first call at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::leader::Leader;
use crate::view::Member;

/// Part of a limit, as one in so many, that gateways keep which want nothing.
const IDLE_PART: u32 = 10;

/// How long what cannot be divided stays with one of the gateways that want it, in milliseconds. A token of a rate of six calls a minute
/// takes as long.
const TURN: u64 = 10_000;
/// Number of shares of a gateway that the leader remembers separately.
const MAX_GIVEN: usize = 32;

/// What a gateway says about one limit in a beat. Units are those of the limit, such as calls in flight, or calls a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// The limit, as the gateway's policy has it.
    pub limit: u32,
    /// The share by which the gateway acts.
    pub share: u32,
    /// How much of the limit is in use, which can be more than a share that has become smaller.
    pub used: u32,
    /// How much the gateway could use.
    pub wanted: u32,
}

/// All limits that the gateways of a tenant share, as the leader of one term knows them. `K` names a limit.
#[derive(Clone, Debug)]
pub struct Limits<K> {
    limits: BTreeMap<K, Shares>,
    /// The gateways that act by shares. Others act by all of each limit, as long as they have a lease.
    divided: BTreeSet<Member>,
}

impl<K> Default for Limits<K> {
    fn default() -> Self {
        Self { limits: BTreeMap::new(), divided: BTreeSet::new() }
    }
}

/// What follows from the demands of a gateway.
#[derive(Clone, Debug)]
pub struct Divided<K> {
    /// The shares that the answer to its beat gives to the gateway; none if it acts by all of each limit.
    pub shares: Option<Vec<(K, u32)>>,
    /// Gateways that should send a beat now: they hold what one without a share wants, or can get a share now.
    pub concerned: BTreeSet<Member>,
}

impl<K: Clone + Ord> Limits<K> {
    /// Divides the limits, as far as a gateway wants. `numbers` are those of the beat, and of the last one whose answer the gateway has accepted; `demands` is what
    /// the beat says. To be called after the leader has received the beat.
    pub fn divide(
        &mut self,
        leader: &Leader,
        now: u64,
        from: &Member,
        numbers: (u64, u64),
        demands: Vec<(K, Demand)>,
    ) -> Divided<K> {
        let mut concerned = BTreeSet::new();
        let shares = self.shares(leader, now, from, numbers, demands, &mut concerned);
        Divided { shares, concerned }
    }

    fn shares(
        &mut self,
        leader: &Leader,
        now: u64,
        from: &Member,
        numbers: (u64, u64),
        demands: Vec<(K, Demand)>,
        concerned: &mut BTreeSet<Member>,
    ) -> Option<Vec<(K, u32)>> {
        self.divided.retain(|member| leader.may_admit(member, now));
        self.limits.retain(|_, shares| {
            shares.gateways.retain(|member, _| leader.may_admit(member, now));
            !shares.gateways.is_empty()
        });
        let others = || leader.gateways().filter(|other| *other != from && leader.may_admit(other, now));
        if demands.is_empty() {
            // It does not know yet that there are others. If it has acted by all of each limit so far, it goes on until it does.
            let acts_by_all = leader.may_admit(from, now) && !self.divided.contains(from) && numbers.1 > 0;
            return (others().next().is_some() && !acts_by_all).then(Vec::new);
        }
        if !leader.may_admit(from, now) {
            return Some(Vec::new());
        }
        let knows_all = leader.is_recovered() && others().all(|other| self.divided.contains(other));
        self.divided.insert(from.clone());
        let named: BTreeSet<&K> = demands.iter().map(|(limit, _)| limit).collect();
        // The gateway's policy does not have these limits any more.
        for (_, shares) in self.limits.iter_mut().filter(|(limit, _)| !named.contains(limit)) {
            shares.gateways.remove(from);
        }
        let mut given = Vec::with_capacity(demands.len());
        for (limit, demand) in demands {
            let shares = self.limits.entry(limit.clone()).or_default();
            given.push((limit, shares.receive(now, from, numbers, demand, knows_all)));
            concerned.extend(shares.concerned(now, from).cloned());
        }
        Some(given)
    }
}

/// The shares of one limit, as the leader of one term knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Shares {
    gateways: BTreeMap<Member, Given>,
}

/// What one gateway may act by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Given {
    demand: Demand,
    /// Shares by number of the beat that they answered: that of the last answer that the gateway has accepted, and later ones.
    shares: Vec<(u64, u32)>,
}

impl Given {
    /// Records that the gateway may act by a share from the answer to this beat on.
    fn remember(&mut self, number: u64, share: u32) {
        self.shares.push((number, share));
        if self.shares.len() > MAX_GIVEN {
            let (_, oldest) = self.shares.remove(0);
            self.shares.iter_mut().take(1).for_each(|next| next.1 = next.1.max(oldest));
        }
    }

    /// Returns the most that the gateway may use now.
    fn most(&self) -> u32 {
        self.shares.iter().map(|(_, share)| *share).fold(self.demand.used, u32::max)
    }
}

impl Shares {
    /// Returns the limit: the lowest that a gateway has. Policies arrive at different times; after a lower one, no gateway gets more
    /// until all fit into it.
    fn limit(&self) -> u32 {
        self.gateways.values().map(|given| given.demand.limit).min().unwrap_or(0)
    }

    /// Returns the share that the answer to a beat gives to a gateway, whose demand the beat contains. `accepted` is the number
    /// of the last beat whose answer the gateway has accepted. `knows_all` is whether all gateways are known that may act by a
    /// share: if not, none gets more than it has.
    fn receive(
        &mut self,
        now: u64,
        from: &Member,
        (number, accepted): (u64, u64),
        demand: Demand,
        knows_all: bool,
    ) -> u32 {
        let given = self.gateways.entry(from.clone()).or_default();
        given.demand = demand;
        given.shares.retain(|(answered, _)| *answered >= accepted);
        // An earlier leader gave it, or the answer is the last that was accepted.
        if !given.shares.iter().any(|(answered, _)| *answered == accepted) {
            given.remember(accepted, demand.share);
        }
        let has = given.most();
        let limit = self.limit();
        let others = self.gateways.iter().filter(|(other, _)| *other != from);
        let others = others.map(|(_, given)| given.most()).fold(0, u32::saturating_add);
        let free = if knows_all { limit.saturating_sub(others) } else { has.min(limit) };
        let share = self.target(now, from).min(free);
        if let Some(given) = self.gateways.get_mut(from) {
            given.remember(number, share);
        }
        share
    }

    /// Returns the gateways that should send a beat after that of another.
    fn concerned<'s>(&'s self, now: u64, from: &Member) -> impl Iterator<Item = &'s Member> {
        let lacks = |given: &Given| given.demand.wanted > 0 && given.most() == 0;
        let is_lacking = self.gateways.get(from).is_some_and(lacks);
        let is_free = self.gateways.values().map(Given::most).fold(0, u32::saturating_add) < self.limit();
        let others = self.gateways.iter().filter(move |(other, _)| *other != from);
        let matters = move |(other, given): &(&Member, &Given)| {
            let target = self.target(now, other);
            (is_lacking && given.most() > target) || (is_free && lacks(given) && target > 0)
        };
        others.filter(matters).map(|(other, _)| other)
    }

    /// Returns how much a gateway should have: what it wants, as far as others that want less leave it, and its part of what
    /// nobody wants.
    fn target(&self, now: u64, of: &Member) -> u32 {
        let limit = self.limit();
        let Some(given) = self.gateways.get(of) else { return 0 };
        let idle = number_of(self.gateways.values().filter(|given| given.demand.wanted == 0).count());
        let kept = (limit / IDLE_PART).checked_div(idle).unwrap_or(0);
        let wanted = |given: &Given| given.demand.wanted.max(kept);
        let mut all: Vec<u32> = self.gateways.values().map(wanted).collect();
        all.sort_unstable();
        // Those that want least get that.
        let (mut left, mut more) = (limit, number_of(all.len()));
        for least in all {
            if least > left / more.max(1) {
                break;
            }
            left -= least;
            more -= 1;
        }
        let Some(level) = left.checked_div(more) else {
            // All have what they want. The rest is divided as well; what cannot be divided stays where it is.
            let holds = |given: &Given| given.most() > 0;
            let before = |(other, other_given): &(&Member, &Given)| (!holds(other_given), *other) < (!holds(given), of);
            let place = number_of(self.gateways.iter().filter(before).count());
            let count = number_of(self.gateways.len());
            return wanted(given) + part(left, count, place);
        };
        if wanted(given) <= level {
            return wanted(given);
        }
        // The others divide what is left equally, and take turns with what cannot be divided.
        let wants_more = self.gateways.iter().filter(|(_, given)| wanted(given) > level);
        let place = number_of(wants_more.take_while(|(other, _)| *other != of).count());
        let turn = u32::try_from(now / TURN % u64::from(more)).unwrap_or(0);
        part(left, more, (place + turn) % more)
    }
}

/// Returns one of `count` parts of an amount. The first ones are greater by one if it cannot be divided.
fn part(amount: u32, count: u32, place: u32) -> u32 {
    let rest = amount.checked_rem(count).unwrap_or(0);
    amount.checked_div(count).unwrap_or(0) + u32::from(place < rest)
}

/// Returns a number of gateways.
fn number_of(gateways: usize) -> u32 {
    u32::try_from(gateways).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
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
            Self {
                shares: Shares::default(),
                limit,
                now: 0,
                gateways: vec![(0, 0, 0, 0); gateways],
                answers: Vec::new(),
            }
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
        for (wanted, expected) in
            [([0, 0], [1, 0]), ([0, 1], [0, 1]), ([0, 0], [0, 1]), ([1, 0], [1, 0]), ([0, 0], [1, 0])]
        {
            world.settle(&wanted, 4);
            assert_eq!(world.given(), expected, "{wanted:?}");
        }
    }

    #[test]
    fn gateways_hear_at_once_of_one_without_a_share() {
        let mut world = World::new(1, 2);
        let concerned = |world: &World, from| world.shares.concerned(0, &member(from)).cloned().collect::<Vec<_>>();
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
}
