//! The leader's side: which gateways are members, and when a new view may be applied.
//!
//! A view is first *prepared* by every gateway that may have a lease, and only then *applied* by its members. Therefore:
//! of the views that were ever applied, each gateway with a lease respects the last one. So it admits calls only of
//! principals whose home it is in that view, and no principal has two homes.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{Answer, Beat, Held, Instruction};
use crate::view::{Member, View, ViewId};

/// Number of answers of which the leader remembers separately when their leases end.
const MAX_GRANTED: usize = 32;

/// How long leases last, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Times {
    /// The lease of a gateway that is one of several. Its principals wait this long if it is lost.
    pub shared: u64,
    /// The lease of the only gateway of a tenant. Its calls go on this long without a leader.
    pub sole: u64,
    /// The longest lease that an earlier leader may have granted.
    pub earlier: u64,
    /// How much later than a gateway the leader takes its lease for ended, besides a hundredth of the lease: clocks of machines are
    /// read in coarse steps, and no two run equally fast.
    pub margin: u64,
}

impl Times {
    /// Returns after which time a lease has certainly ended.
    pub const fn ended_after(&self, lease: u64) -> u64 {
        lease.saturating_add(lease / 100).saturating_add(self.margin)
    }

    /// Returns after which time the lease of an earlier leader has certainly ended, of a gateway that respects these views: if they all
    /// have several members, it is that of one of several.
    fn earlier_ended_after(&self, held: &Held) -> u64 {
        let is_shared = held.views().all(|view| view.members().len() > 1);
        if is_shared { self.ended_after(self.shared) } else { self.longest() }
    }

    fn longest(&self) -> u64 {
        self.ended_after(self.shared.max(self.sole).max(self.earlier))
    }
}

/// What the leader of one term knows about the gateways of one tenant. Times are milliseconds on a clock that runs while
/// the machine sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    term: u64,
    times: Times,
    /// The most members that a view gets. One that has more keeps them until they leave.
    places: usize,
    gateways: BTreeMap<Member, Known>,
    /// Whether all gateways that may be homes by an earlier leader are in `gateways`.
    recovery: Recovery,
    /// The last view that may be applied.
    current: Option<View>,
    /// The view that gateways are preparing for.
    next: Option<View>,
    /// Number of the last view of this term.
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Recovery {
    /// Began at this time. No earlier leader has granted a lease since.
    Since(u64),
    Done,
}

/// What is known about one process of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Known {
    /// Number of its last beat.
    beat: u64,
    /// When that arrived.
    seen: u64,
    willing: bool,
    /// Number of the last beat whose answer it has accepted.
    accepted: u64,
    held: Option<Held>,
    /// Number of the last beat that was answered with a view to apply.
    told_to_apply: u64,
    /// By number of the beat: when the lease of an answer has certainly ended. Of the last answer that the gateway has
    /// accepted, and those after it.
    granted: Vec<(u64, u64)>,
}

impl Leader {
    /// Creates the state of a leader whose term begins now. No earlier leader has made a decision after `now`.
    pub fn new(term: u64, now: u64, times: Times, places: usize) -> Self {
        let recovery = Recovery::Since(now);
        Self { term, times, places, gateways: BTreeMap::new(), recovery, current: None, next: None, number: 0 }
    }

    /// Returns the term.
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// Returns the last view that may be applied; none before the first one of this term.
    pub const fn current(&self) -> Option<&View> {
        self.current.as_ref()
    }

    /// Returns which views may be applied, and are being prepared. When they change, the other gateways should hear of it.
    pub fn view_ids(&self) -> [Option<ViewId>; 2] {
        [&self.current, &self.next].map(|view| view.as_ref().map(|view| view.id))
    }

    /// Returns whether a gateway is the home of a principal in a view that may be applied or is being prepared, or may be because there is
    /// none yet.
    pub fn may_be_home(&self, gateway: &Member, principal_uid: &str) -> bool {
        let mut views = self.current.iter().chain(&self.next).peekable();
        views.peek().is_none() || views.any(|view| view.home(principal_uid) == Some(gateway))
    }

    /// Returns the members of all views by which a gateway may act: those that may be applied, those that are being prepared, and
    /// those that gateways have of an earlier leader.
    pub fn members(&self) -> BTreeSet<&Member> {
        let held = self.gateways.values().filter_map(|known| known.held.as_ref()).flat_map(Held::views);
        self.current.iter().chain(&self.next).chain(held).flat_map(View::members).collect()
    }

    /// Changes how long the leases last that are granted from now on.
    pub const fn set_times(&mut self, times: Times) {
        self.times = times;
    }

    /// Changes how many members a view gets at most. Gateways that are homes stay so: it is not the leader who ends those that are
    /// too many, and a principal should move only once, when its home leaves.
    pub const fn set_places(&mut self, places: usize) {
        self.places = places;
    }

    /// Returns how many members a view gets at most.
    pub const fn places(&self) -> usize {
        self.places
    }

    /// Returns whether every gateway is known that may be a home by an earlier leader.
    pub fn is_recovered(&self) -> bool {
        self.recovery == Recovery::Done
    }

    /// Returns the processes that have sent a beat in this term and are not known to have ended.
    pub fn gateways(&self) -> impl Iterator<Item = &Member> {
        self.gateways.keys()
    }

    /// Returns whether a gateway may have a lease, by which it admits calls.
    pub fn may_admit(&self, gateway: &Member, now: u64) -> bool {
        self.gateways.get(gateway).is_some_and(|known| known.lease_ended() > now)
    }

    /// Returns for how long, at most, gateways other than this one may have leases that were granted so far.
    pub fn others_have_leases(&self, now: u64, gateway: &Member) -> u64 {
        let others = self.gateways.iter().filter(|(other, _)| *other != gateway);
        let earlier = match self.recovery {
            Recovery::Since(start) => self.earlier_leases_end(start),
            Recovery::Done => 0,
        };
        others.map(|(_, known)| known.lease_ended()).fold(earlier, u64::max).saturating_sub(now)
    }

    /// Answers a beat of a gateway. None if the beat is out of date.
    pub fn receive(&mut self, now: u64, from: &Member, beat: Beat) -> Option<Answer> {
        let known = self.gateways.get(from).cloned().unwrap_or_default();
        if beat.term != self.term || beat.number <= known.beat {
            return None;
        }
        let Beat { term, number, accepted, held, willing } = beat;
        let mut granted = known.granted;
        granted.retain(|(_, ended)| *ended > now);
        match &held {
            // An earlier leader granted the lease.
            Some(held) if known.beat == 0 => {
                granted.push((accepted, now.saturating_add(self.times.earlier_ended_after(held))));
            }
            // Its lease is that of the last answer that it has accepted, or of a later one.
            Some(_) => granted.retain(|(number, _)| *number >= accepted),
            // The gateway may still receive an earlier answer, and have a lease then.
            None if accepted < known.told_to_apply => {}
            None => granted.clear(),
        }
        let known = Known { beat: number, seen: now, willing, accepted, held, granted, ..known };
        self.gateways.insert(from.clone(), known);
        self.advance(now);
        let known = self.gateways.get(from)?;
        let (instruction, lease_ms) = (self.instruct(from, known), self.lease_ms(known));
        let known = self.gateways.get_mut(from)?;
        if instruction != Instruction::Wait {
            known.grant(number, now.saturating_add(self.times.ended_after(lease_ms)));
        }
        if let Instruction::Apply(_) = instruction {
            known.told_to_apply = number;
        }
        Some(Answer { term, number, lease_ms, instruction })
    }

    /// Records that a process of a gateway has ended.
    pub fn ended(&mut self, member: &Member) {
        self.gateways.remove(member);
    }

    /// Records that no gateway runs that has not sent a beat in this term.
    pub fn no_others_run(&mut self) {
        self.recovery = Recovery::Done;
    }

    /// Moves on to the next view if there has to be one, and applies it if every gateway is prepared.
    fn advance(&mut self, now: u64) {
        // A gateway without a lease that is not heard of is forgotten.
        let keep = self.times.longest();
        self.gateways.retain(|_, known| known.lease_ended() > now || known.seen.saturating_add(keep) > now);
        if !self.has_recovered(now) {
            return;
        }
        if self.next.is_none() {
            let members = self.wanted_members(now);
            let differs = self.current.as_ref().is_none_or(|current| current.members() != members);
            // The last gateway goes on until there is another one, even if it drains.
            if differs && !members.is_empty() {
                self.number += 1;
                self.next = Some(View::new(ViewId { term: self.term, number: self.number }, members));
            }
        }
        let is_prepared = |next: &View| {
            let mut gateways = self.gateways.iter();
            gateways.all(|(gateway, known)| known.lease_ended() <= now || known.forbids(gateway, next))
        };
        if let Some(next) = self.next.take_if(|next| is_prepared(next)) {
            self.current = Some(next);
        }
    }

    /// Returns the gateways that should be members, in order.
    fn wanted_members(&self, now: u64) -> Vec<Member> {
        let is_seen = |known: &Known| known.seen.saturating_add(self.times.shared) > now;
        let willing = || self.gateways.iter().filter(|(_, known)| known.willing);
        let seen = || willing().filter(|(_, known)| is_seen(known));
        let is_member = |member: &Member| self.current.as_ref().is_some_and(|current| current.contains(member));
        let member = |(member, _): (&Member, &Known)| member.clone();
        // There is no use in replacing gateways that are not heard of by none.
        let any_seen = seen().next().is_some();
        let mut members: Vec<_> = if any_seen { seen().map(member).collect() } else { willing().map(member).collect() };
        // Those that are homes stay so: a gateway that is one too many waits until one of them leaves.
        members.sort_by_key(|member| !is_member(member));
        let staying = members.iter().take_while(|member| is_member(member)).count();
        members.truncate(self.places.max(staying));
        members.sort();
        members
    }

    /// Returns whether every gateway is known that may be a home by an earlier leader.
    fn has_recovered(&mut self, now: u64) -> bool {
        let Recovery::Since(start) = self.recovery else { return true };
        let end = self.earlier_leases_end(start);
        // A gateway with a lease respects the last view that was applied. So the homes are members of one of its views.
        let knows_all =
            |held: &Held| held.views().flat_map(View::members).all(|member| self.gateways.contains_key(member));
        if now >= end || self.gateways.values().filter_map(|known| known.held.as_ref()).any(knows_all) {
            self.recovery = Recovery::Done;
        }
        self.recovery == Recovery::Done
    }

    /// Returns when all leases that earlier leaders granted have ended. The last was granted at `start` at the latest.
    ///
    /// Every gateway with a lease has prepared for the last view that was applied. If all views that one of them respects have several
    /// members, that view has, and since every gateway was prepared for it, each has got the lease of one of several.
    fn earlier_leases_end(&self, start: u64) -> u64 {
        let held = self.gateways.values().filter_map(|known| known.held.as_ref());
        let longest = held.map(|held| self.times.earlier_ended_after(held)).min();
        start.saturating_add(longest.unwrap_or_else(|| self.times.longest()))
    }

    /// Returns what a gateway has to do.
    fn instruct(&self, gateway: &Member, known: &Known) -> Instruction {
        match (&known.held, &self.next, &self.current) {
            (Some(held), Some(next), _) if !held.respects(next) => Instruction::Prepare(next.clone()),
            (Some(_), Some(_), _) | (Some(_), None, None) => Instruction::Keep,
            (held, None, Some(current)) if current.contains(gateway) => match held {
                Some(held) if held.active == *current && held.prepared.is_empty() => Instruction::Keep,
                // It has given its lease up, or lost it while it drains.
                None if !known.willing => Instruction::Wait,
                _ => Instruction::Apply(current.clone()),
            },
            _ => Instruction::Wait,
        }
    }

    /// Returns how long the lease of a gateway lasts that is granted now.
    fn lease_ms(&self, known: &Known) -> u64 {
        let held = known.held.iter().flat_map(Held::views);
        let is_sole = held.chain(&self.current).chain(&self.next).all(|view| view.members().len() <= 1);
        if is_sole { self.times.sole } else { self.times.shared }
    }
}

impl Known {
    fn grant(&mut self, number: u64, ended: u64) {
        self.granted.push((number, ended));
        if self.granted.len() > MAX_GRANTED {
            let (_, ended) = self.granted.remove(0);
            self.granted.iter_mut().take(1).for_each(|oldest| oldest.1 = oldest.1.max(ended));
        }
    }

    /// Returns when the gateway has certainly no lease any more.
    fn lease_ended(&self) -> u64 {
        self.granted.iter().map(|(_, ended)| *ended).max().unwrap_or(0)
    }

    /// Returns whether the gateway has stopped to admit calls that a view forbids.
    fn forbids(&self, gateway: &Member, next: &View) -> bool {
        let Some(held) = &self.held else { return false };
        // One that is not a member of a view that it respects admits nothing, unless a view to apply is under way to it.
        let admits_nothing = || self.accepted >= self.told_to_apply && held.views().any(|view| !view.contains(gateway));
        held.respects(next) || admits_nothing()
    }
}
