//! The latest settled calls of one principal.

use std::time::Duration;

use super::fingerprint::Fingerprint;
use crate::tick::Tick;

/// Number of calls that are remembered. Loops are judged by their latest calls, so a longer history would only make
/// the state larger.
pub(super) const LENGTH: usize = 40;

/// A call of a tool, as digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallKey {
    /// The server and the tool.
    pub(super) tool: u64,
    /// The tool and its arguments.
    pub(super) call: u64,
}

/// What a result says about the progress of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The caller learned something that it had not seen before.
    New,
    /// The same call had another result the time before, though the caller has seen this one earlier.
    Changed,
    /// The call may have changed something; its result does not tell.
    Unknown,
    /// Another question with a short answer that the caller has seen before. It can well be right.
    Short,
    /// The caller has seen the result before.
    Old,
}

/// A settled call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: CallKey,
    pub(super) result: Fingerprint,
    pub(super) admitted: Tick,
    pub(super) settled: Tick,
    pub(super) news: News,
    /// Unchanged results of the tool are not judged.
    pub(super) tolerated: bool,
}

impl Entry {
    /// Returns whether both are the same call with the same result. Times and durations do not matter, unless the call
    /// is a poll of something unfinished: then every change counts.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        let (a, b) = (&self.result, &other.result);
        let same = if self.result.signs.waiting { a.exact == b.exact } else { a.shape == b.shape };
        self.key == other.key && same && a.signs == b.signs
    }

    /// Returns whether the result says by itself that there is no progress to judge.
    pub(super) const fn is_poll(&self) -> bool {
        self.result.signs.waiting || (self.tolerated && !self.result.signs.failing)
    }
}

/// The latest settled calls, in the order in which they ended.
#[derive(Debug)]
pub(super) struct History {
    entries: [Option<Entry>; LENGTH],
    /// Place of the next entry.
    next: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { entries: [const { None }; LENGTH], next: 0 }
    }
}

impl History {
    pub(super) fn push(&mut self, entry: Entry) {
        if let Some(place) = self.entries.get_mut(self.next) {
            *place = Some(entry);
        }
        self.next = (self.next + 1) % LENGTH;
    }

    /// Returns the calls that ended within `window` before `now`, the latest first.
    pub(super) fn latest(&self, now: Tick, window: Duration) -> impl Iterator<Item = &Entry> + Clone {
        let (after, before) = self.entries.split_at(self.next.min(LENGTH));
        let ordered = after.iter().rev().chain(before.iter().rev());
        ordered.map_while(Option::as_ref).take_while(move |entry| now.since(entry.settled) <= window)
    }

    /// Returns what a result tells a caller that has seen the results in this history.
    pub(super) fn news(&self, key: CallKey, result: &Fingerprint, changes: bool, now: Tick, window: Duration) -> News {
        let signs = result.signs;
        // The last result of the same call, and whether this result was seen at all: from the same call, from another.
        let (mut last, mut from_same, mut from_other) = (None, false, false);
        for entry in self.latest(now, window).filter(|entry| entry.key.tool == key.tool) {
            let alike = entry.result.shape == result.shape && entry.result.signs == signs;
            if entry.key.call == key.call {
                last = last.or(Some(alike));
                from_same |= alike;
            } else {
                from_other |= alike;
            }
        }
        match (last, from_same, from_other) {
            (_, false, true) if signs.failing => News::Old,
            (Some(true), ..) => News::Old,
            (_, true, _) => {
                if signs.failing {
                    News::Old
                } else {
                    News::Changed
                }
            }
            // The first call with these arguments of a tool that changes something.
            (None, false, _) if changes => News::Unknown,
            (_, false, true) if signs.terse && !signs.empty => News::Short,
            (_, false, true) => News::Old,
            (_, false, false) => News::New,
        }
    }

    /// Returns when the latest call ended.
    pub(super) fn last(&self) -> Option<Tick> {
        self.latest(Tick::ZERO, Duration::MAX).next().map(|entry| entry.settled)
    }
}
