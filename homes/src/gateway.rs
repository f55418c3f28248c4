//! The gateway's side: whether this gateway is the home of a principal now.

use std::collections::VecDeque;

use crate::message::{Answer, Beat, Held, Instruction};
use crate::view::Member;

/// Number of beats whose answers are awaited. An answer to an older one is ignored.
const MAX_AWAITED: usize = 32;
/// Number of views that a gateway prepares for. A gateway that is told of more gives its lease up, rather than forget one.
const MAX_PREPARED: usize = 8;

/// What one process of a gateway knows about homes. Times are milliseconds on a clock that runs while the machine sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    member: Member,
    term: u64,
    /// Number of the last beat.
    beat: u64,
    /// Number of the last beat whose answer was accepted.
    accepted: u64,
    /// Numbers of beats of this term without an answer, and when they were sent.
    awaited: VecDeque<(u64, u64)>,
    lease: Option<Lease>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lease {
    held: Held,
    ends: u64,
}

impl Gateway {
    /// Creates a gateway that is no one's home.
    pub const fn new(member: Member) -> Self {
        Self { member, term: 0, beat: 0, accepted: 0, awaited: VecDeque::new(), lease: None }
    }

    /// Records that the gateway is connected to the leader of this term. Answers of earlier terms are ignored from now on.
    /// Returns false, and ignores the leader, if a later one is known.
    pub fn connect(&mut self, term: u64) -> bool {
        if term < self.term {
            return false;
        }
        if term > self.term {
            (self.term, self.accepted) = (term, 0);
        }
        // Answers of another stream do not arrive on this one.
        self.awaited.clear();
        true
    }

    /// Returns the beat to send now.
    pub fn beat(&mut self, now: u64, willing: bool) -> Beat {
        self.end_lease(now);
        self.beat += 1;
        if self.awaited.len() == MAX_AWAITED {
            self.awaited.pop_front();
        }
        self.awaited.push_back((self.beat, now));
        let held = self.lease.as_ref().map(|lease| lease.held.clone());
        Beat { term: self.term, number: self.beat, accepted: self.accepted, held, willing }
    }

    /// Does what an answer says. Returns whether the views by which calls are admitted changed; the leader should then
    /// be told at once.
    pub fn receive(&mut self, now: u64, answer: Answer) -> bool {
        self.end_lease(now);
        let Some(ends) = self.lease_of(now, &answer) else { return false };
        self.accepted = answer.number;
        self.awaited.retain(|(number, _)| *number > answer.number);
        let before = self.lease.take();
        // What has ended is not continued: other gateways may be the homes by now.
        let held = match (before.as_ref().map(|lease| &lease.held), answer.instruction) {
            (_, Instruction::Wait) | (None, Instruction::Keep | Instruction::Prepare(_)) => None,
            (Some(held), Instruction::Keep) => Some(held.clone()),
            (Some(held), Instruction::Prepare(view)) if held.respects(&view) => Some(held.clone()),
            (Some(held), Instruction::Prepare(view)) => {
                let prepared = [&held.prepared[..], &[view]].concat();
                (prepared.len() <= MAX_PREPARED).then(|| Held { active: held.active.clone(), prepared })
            }
            // No leader applies a view that a gateway with a lease is not prepared for.
            (Some(held), Instruction::Apply(view)) if !held.respects(&view) => None,
            (_, Instruction::Apply(view)) => Some(Held { active: view, prepared: Vec::new() }),
        };
        let changed = before.as_ref().map(|lease| &lease.held) != held.as_ref();
        // The lease may become shorter. The leader counts on that once it is told that the answer was accepted.
        self.lease = held.map(|held| Lease { held, ends });
        changed
    }

    /// Returns whether [`Self::receive`] would do what an answer says now. Other answers are out of date.
    pub fn accepts(&self, now: u64, answer: &Answer) -> bool {
        self.lease_of(now, answer).is_some()
    }

    /// Returns when the lease of an answer ends; none if the answer is out of date.
    fn lease_of(&self, now: u64, answer: &Answer) -> Option<u64> {
        // An earlier answer than one that was accepted is out of date.
        if answer.term != self.term || answer.number <= self.accepted {
            return None;
        }
        let (_, sent) = self.awaited.iter().find(|(number, _)| *number == answer.number)?;
        // The leader counts from when it received the beat. That was later, so it does not take the lease for ended while
        // it lasts, however long the answer took.
        let ends = sent.saturating_add(answer.lease_ms);
        (now < ends).then_some(ends)
    }

    /// Gives the lease up. The next beat tells the leader, which then need not wait for its end.
    pub fn release(&mut self) {
        self.lease = None;
    }

    /// Returns whether the calls of a principal may be admitted now.
    pub fn admits(&self, now: u64, principal_uid: &str) -> bool {
        self.held(now).is_some_and(|held| held.admits(&self.member, principal_uid))
    }

    /// Returns what calls are admitted by now; none if there is no lease, or it has ended.
    pub fn held(&self, now: u64) -> Option<&Held> {
        self.lease.as_ref().filter(|lease| now < lease.ends).map(|lease| &lease.held)
    }

    /// Returns when the lease ends, if there is one.
    pub fn lease_ends(&self) -> Option<u64> {
        self.lease.as_ref().map(|lease| lease.ends)
    }

    /// Returns the process that this is the state of.
    pub const fn member(&self) -> &Member {
        &self.member
    }

    /// Returns the term of the leader that the gateway was connected to last.
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// Forgets a lease that has ended, so that no late answer continues it.
    fn end_lease(&mut self, now: u64) {
        if self.held(now).is_none() {
            self.lease = None;
        }
    }
}
