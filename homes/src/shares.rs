//! How a limit of a tenant or of one of its servers is divided among the gateways that share the tenant's principals.
//!
//! Each gateway applies its *share* of the limit to its own calls. The leader gives shares with its answers to beats, so that at
//! any time the shares by which gateways act add up to no more than the limit: a gateway gets more only after others have
//! accepted less, or have no lease any more. What gateways want decides how the limit is divided; what nobody wants is divided
//! equally, so that a gateway can serve a first call at once.

use std::collections::BTreeMap;

use crate::view::Member;

/// Part of a limit, as one in so many, that gateways keep which want nothing.
const IDLE_PART: u64 = 10;

/// What a gateway says about one limit in a beat. Units are those of the limit, such as calls in flight, or calls a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// The share by which the gateway acts.
    pub share: u64,
    /// How much of the limit is in use, which can be more than a share that has become smaller.
    pub used: u64,
    /// How much the gateway could use.
    pub wanted: u64,
}

/// The shares of one limit, as the leader of one term knows them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shares {
    limit: u64,
    gateways: BTreeMap<Member, Given>,
}

/// What one gateway may act by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Given {
    demand: Demand,
    /// Shares by number of the beat that they answered: that of the last answer that the gateway has accepted, and later ones.
    shares: Vec<(u64, u64)>,
}

impl Given {
    /// Returns the most that the gateway may use now.
    fn most(&self) -> u64 {
        self.shares.iter().map(|(_, share)| *share).fold(self.demand.used, u64::max)
    }
}

impl Shares {
    /// Returns the shares of a limit that no gateway has any of, as far as is known.
    pub const fn new(limit: u64) -> Self {
        Self { limit, gateways: BTreeMap::new() }
    }

    /// Changes the limit. A lower one comes into force as gateways hear of it; no gateway gets more until all fit into it.
    pub const fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Returns the share that the answer to a beat gives to a gateway, whose demand the beat contains. `accepted` is the number
    /// of the last beat whose answer the gateway has accepted. `knows_all` is whether all gateways are known that may act by a
    /// share: if not, none gets more than it has.
    pub fn receive(&mut self, from: &Member, (number, accepted): (u64, u64), demand: Demand, knows_all: bool) -> u64 {
        let given = self.gateways.entry(from.clone()).or_default();
        given.demand = demand;
        given.shares.retain(|(answered, _)| *answered >= accepted);
        // An earlier leader gave it, or the answer is the last that was accepted.
        if !given.shares.iter().any(|(answered, _)| *answered == accepted) {
            given.shares.push((accepted, demand.share));
        }
        let has = given.most();
        let others: u64 = self.gateways.iter().filter(|(other, _)| *other != from).map(|(_, given)| given.most()).sum();
        let free = if knows_all { self.limit.saturating_sub(others) } else { has.min(self.limit) };
        let share = self.target(from).min(free);
        if let Some(given) = self.gateways.get_mut(from) {
            given.shares.push((number, share));
        }
        share
    }

    /// Records that a gateway has no lease: it admits no calls.
    pub fn ended(&mut self, member: &Member) {
        self.gateways.remove(member);
    }

    /// Returns the gateways that have more than they should: others wait for some of it.
    pub fn should_shrink(&self) -> impl Iterator<Item = &Member> {
        let has_more = |(member, given): &(&Member, &Given)| given.most() > self.target(member);
        self.gateways.iter().filter(has_more).map(|(member, _)| member)
    }

    /// Returns how much a gateway should have: what it wants, as far as others that want less leave it, and its part of what
    /// nobody wants.
    fn target(&self, of: &Member) -> u64 {
        let count = self.gateways.len() as u64;
        let idle = self.gateways.values().filter(|given| given.demand.wanted == 0).count() as u64;
        let kept = if idle == 0 { 0 } else { self.limit / IDLE_PART / idle };
        let wanted = |given: &Given| given.demand.wanted.max(kept);
        // Those that want least get that, and the others divide the rest equally.
        let mut all: Vec<(u64, &Member)> =
            self.gateways.iter().map(|(member, given)| (wanted(given), member)).collect();
        all.sort();
        let (mut left, mut more, mut target) = (self.limit, count, 0);
        for (wanted, member) in all {
            // What cannot be divided goes to those that come last.
            let part = wanted.min(left / more.max(1));
            if member == of {
                target = part;
            }
            left -= part;
            more -= 1;
        }
        // What nobody wants.
        let position = self.gateways.keys().position(|member| member == of).unwrap_or(0) as u64;
        let extra = u64::from(position < left.checked_rem(count).unwrap_or(0));
        target + left.checked_div(count).unwrap_or(0) + extra
    }
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
        /// Of each gateway: its share, what it uses, the number of its last beat and of the last whose answer it has accepted.
        gateways: Vec<(u64, u64, u64, u64)>,
        /// Answers under way: gateway, number and share.
        answers: Vec<(usize, u64, u64)>,
    }

    impl World {
        fn new(limit: u64, gateways: usize) -> Self {
            Self { shares: Shares::new(limit), gateways: vec![(0, 0, 0, 0); gateways], answers: Vec::new() }
        }

        fn beat(&mut self, number: usize, wanted: u64) {
            let (share, used, beat, accepted) = &mut self.gateways[number];
            *beat += 1;
            let demand = Demand { share: *share, used: *used, wanted };
            let given = self.shares.receive(&member(number), (*beat, *accepted), demand, true);
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
        fn settle(&mut self, wanted: &[u64], rounds: usize) {
            for _ in 0..rounds {
                for (number, wanted) in wanted.iter().enumerate() {
                    self.beat(number, *wanted);
                    self.accept(self.answers.len() - 1);
                }
            }
        }

        fn given(&self) -> Vec<u64> {
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
        let mut shares = Shares::new(10);
        let demand = Demand { share: 3, used: 0, wanted: 10 };
        assert_eq!(shares.receive(&member(0), (8, 7), demand, false), 3);
        assert_eq!(shares.receive(&member(0), (9, 8), demand, true), 10);
    }

    #[test]
    fn a_lower_limit_is_respected_before_anybody_gets_more() {
        let mut world = World::new(100, 2);
        world.settle(&[100, 100], 4);
        world.shares.set_limit(10);
        world.beat(0, 100);
        world.accept(0);
        assert_eq!(world.given(), [0, 50], "the other may still use more than all of it");
        assert!(world.shares.should_shrink().any(|gateway| *gateway == member(1)));
        world.settle(&[100, 100], 4);
        assert_eq!(world.given(), [5, 5]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Beat(usize, u64),
        /// Answers arrive late, in any order, or not at all.
        Accept(usize),
        Lose(usize),
        Begin(usize, u64),
        End(usize, u64),
        Crash(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let gateway = 0..3_usize;
        prop_oneof![
            4 => (gateway.clone(), 0..30_u64).prop_map(|(gateway, wanted)| Step::Beat(gateway, wanted)),
            4 => (0..8_usize).prop_map(Step::Accept),
            1 => (0..8_usize).prop_map(Step::Lose),
            2 => (gateway.clone(), 1..10_u64).prop_map(|(gateway, calls)| Step::Begin(gateway, calls)),
            2 => (gateway.clone(), 1..10_u64).prop_map(|(gateway, calls)| Step::End(gateway, calls)),
            1 => gateway.prop_map(Step::Crash),
        ]
    }

    proptest! {
        #[test]
        fn what_gateways_use_never_exceeds_the_limit(limit in 1..40_u64, steps in prop::collection::vec(step(), 0..120)) {
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
                        world.shares.ended(&member(gateway));
                        world.answers.retain(|(of, ..)| *of != gateway);
                        world.gateways[gateway] = (0, 0, 0, 0);
                    }
                    Step::Accept(_) | Step::Lose(_) => {}
                }
                let used: u64 = world.gateways.iter().map(|(_, used, ..)| used).sum();
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
