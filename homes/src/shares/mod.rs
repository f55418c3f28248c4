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
    /// Gateways that should send a beat now: they hold what another one lacks, or can get what they lack now.
    pub concerned: BTreeSet<Member>,
}

impl<K: Clone + Ord> Limits<K> {
    /// Divides the limits by what gateways want. `numbers` are those of the beat, and of the last one whose answer the gateway has
    /// accepted; `demands` is what the beat says. To be called after the leader has received the beat.
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
            concerned.extend(shares.concerned(now, from, knows_all).cloned());
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

    /// Returns the gateways that should send a beat after that of another. `knows_all` as for [`Self::receive`].
    fn concerned<'s>(&'s self, now: u64, from: &Member, knows_all: bool) -> impl Iterator<Item = &'s Member> {
        let lacks = move |of: &Member, given: &Given| {
            let most = given.most();
            given.demand.wanted > most && self.target(now, of) > most
        };
        let is_lacking = self.gateways.get(from).is_some_and(|given| lacks(from, given));
        // What is free cannot be given to anybody before all are known, so none of them need ask for it.
        let is_free = knows_all && self.gateways.values().map(Given::most).fold(0, u32::saturating_add) < self.limit();
        let others = self.gateways.iter().filter(move |(other, _)| *other != from);
        let matters = move |(other, given): &(&Member, &Given)| {
            (is_lacking && given.most() > self.target(now, other)) || (is_free && lacks(other, given))
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
mod tests;
