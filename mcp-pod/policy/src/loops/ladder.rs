//! From a warning to a refusal: what is held against later calls of a loop.

use std::time::Duration;

use super::history::CallKey;
use super::rules::{Finding, Kind, Scope};
use crate::tick::Tick;

/// Number of loops of one principal that are watched at a time.
pub(super) const ALARMS: usize = 6;
/// Calls against the back-off, one after the other, for which the loop is refused as a whole.
const STRIKES: u8 = 3;
/// How often `coolDown` doubles, if calls continue the loop after it has passed.
const DOUBLINGS: u32 = 4;
/// Shortest back-off.
const FIRST: Duration = Duration::from_secs(1);

/// What a caller is told about a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub kind: Kind,
    /// How often.
    pub count: u32,
    /// For how long.
    pub duration: Duration,
    /// Until when calls of the loop are refused, from now. Zero: they are not.
    pub wait: Duration,
    /// Whether the loop is refused for `coolDown`, and not only slowed down.
    pub refused: bool,
}

/// How the latest call ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Its result was new.
    pub(super) with_news: bool,
    pub(super) successfully: bool,
}

/// What the alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Call(u64),
    Tool(u64),
    /// Every call of the principal.
    All,
}

/// A loop that is held against later calls.
#[derive(Clone, Copy, Debug)]
struct Alarm {
    about: About,
    kind: Kind,
    count: u32,
    since: Tick,
    /// Calls before this are refused.
    until: Tick,
    /// How long the calls are refused after too many strikes.
    cool_down: Duration,
    strikes: u8,
    refused: bool,
}

/// The loops of one principal.
#[derive(Debug, Default)]
pub(super) struct Alarms([Option<Alarm>; ALARMS]);

impl Alarms {
    /// Checks whether a call may be made now. A refused call counts as a strike.
    pub(super) fn check(&mut self, now: Tick, key: CallKey) -> Result<(), Evidence> {
        let about = |alarm: &&mut Alarm| {
            matches!(alarm.about, About::All)
                || alarm.about == About::Call(key.call)
                || alarm.about == About::Tool(key.tool)
        };
        let mut longest: Option<&mut Alarm> = None;
        for alarm in self.0.iter_mut().flatten().filter(about) {
            if now >= alarm.until {
                alarm.strikes = 0;
            } else if longest.as_ref().is_none_or(|longest| longest.until < alarm.until) {
                longest = Some(alarm);
            }
        }
        let Some(alarm) = longest else { return Ok(()) };
        if !alarm.refused {
            alarm.strikes += 1;
            if alarm.strikes >= STRIKES {
                alarm.refused = true;
                alarm.until = now.plus(alarm.cool_down);
            }
        }
        Err(alarm.evidence(now))
    }

    /// Records what the latest call showed, and returns what its caller is told.
    pub(super) fn record(
        &mut self,
        now: Tick,
        key: CallKey,
        found: Option<Finding>,
        ended: Ended,
        cool_down: Duration,
    ) -> Option<Evidence> {
        let Some(found) = found else {
            // The call ended its loop, if it was part of one. The loop of a tool goes on after a call that tells nothing.
            self.remove(|alarm| match alarm.about {
                About::Call(call) => call == key.call,
                About::Tool(tool) => {
                    tool == key.tool && (ended.with_news || (alarm.kind == Kind::Failing && ended.successfully))
                }
                About::All => false,
            });
            return None;
        };
        let Finding { kind, scope, count, refuse_at, steps, longest, since } = found;
        let beyond = refuse_at.and_then(|at| count.checked_sub(at));
        let (wait, refused) = match beyond {
            Some(beyond) => {
                let longest = cool_down.saturating_mul(1 << DOUBLINGS);
                // A loop that is slower than the cool-down would never be stopped by it.
                let pace = now.since(since) / count.max(1);
                let wait = cool_down.saturating_mul(1 << beyond.min(DOUBLINGS));
                (wait.max(pace.saturating_mul(2)).min(longest), true)
            }
            None => (back_off(steps, longest), false),
        };
        let about = match scope {
            Scope::Call => About::Call(key.call),
            Scope::Tool => About::Tool(key.tool),
        };
        let alarm = Alarm { about, kind, count, since, until: now.plus(wait), cool_down, strikes: 0, refused };
        if wait > Duration::ZERO {
            self.set(now, alarm);
        }
        Some(alarm.evidence(now))
    }

    /// Returns whether calls are refused now.
    pub(super) fn any(&self, now: Tick) -> bool {
        self.0.iter().flatten().any(|alarm| now < alarm.until)
    }

    fn remove(&mut self, which: impl Fn(&Alarm) -> bool) {
        for place in &mut self.0 {
            if place.as_ref().is_some_and(&which) {
                *place = None;
            }
        }
    }

    fn set(&mut self, now: Tick, alarm: Alarm) {
        let same = self.0.iter().position(|place| place.is_some_and(|known| known.about == alarm.about));
        let free = || self.0.iter().position(|place| place.is_none_or(|known| now >= known.until));
        if let Some(place) = same.or_else(free).and_then(|place| self.0.get_mut(place)) {
            let strikes = place.filter(|known| known.about == alarm.about).map_or(0, |known| known.strikes);
            *place = Some(Alarm { strikes, ..alarm });
            return;
        }
        // A caller that could push out one of its loops by starting another one would get out of all of them. One with
        // so many loops at a time is stopped as a whole.
        self.0 = [None; ALARMS];
        self.0[0] = Some(Alarm { about: About::All, refused: true, until: now.plus(alarm.cool_down), ..alarm });
    }
}

impl Alarm {
    fn evidence(&self, now: Tick) -> Evidence {
        Evidence {
            kind: self.kind,
            count: self.count,
            duration: now.since(self.since),
            wait: self.until.since(now),
            refused: self.refused,
        }
    }
}

/// Returns how long the next call has to wait: nothing with the first warning, then 1 s, 2 s, 4 s, …
fn back_off(steps: u32, longest: Duration) -> Duration {
    match steps.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(longest),
    }
}
