//! The rules that find a loop in the latest calls. All of them judge by results.
//!
//! Calls that ran in parallel count as one round, or as one more for every eight of them: a caller that has sent ten
//! calls before the first answer has repeated nothing yet, but it cannot push the rounds before out of the history.

use std::time::Duration;

use super::fingerprint::Signs;
use super::history::{Entry, History, News};
use super::settings::LoopSettings;
use crate::tick::Tick;

/// Number of identical calls in a short time from which the caller is warned even if the results change.
const STORM: u32 = 30;
/// The short time.
const STORM_TIME: Duration = Duration::from_secs(30);

/// What kind of loop it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The identical call gets the identical result.
    Unchanged,
    /// The identical call fails alike.
    Retry,
    /// The same two to four calls follow each other with the same results.
    Cycle,
    /// The tool fails for the same cause, whatever the arguments are.
    Failing,
    /// None of the latest calls had a new result.
    NothingNew,
    /// The identical call is made very often, and its results change.
    Storm,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Unchanged, Self::Retry, Self::Cycle, Self::Failing, Self::NothingNew, Self::Storm];

    /// Returns the name in audit lines; never changed once released.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Retry => "retry",
            Self::Cycle => "cycle",
            Self::Failing => "failing",
            Self::NothingNew => "nothing_new",
            Self::Storm => "storm",
        }
    }
}

/// Which later calls continue the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The identical call.
    Call,
    /// Every call of the tool.
    Tool,
}

/// A loop that the latest call continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    /// Number of calls or repetitions so far.
    pub(super) count: u32,
    /// Number at which the calls are refused; none if the caller only has to slow down.
    pub(super) refuse_at: Option<u32>,
    /// Calls after the warning, which make the back-off grow.
    pub(super) steps: u32,
    /// Longest back-off.
    pub(super) longest: Duration,
    pub(super) since: Tick,
}

const SECOND: Duration = Duration::from_secs(1);
/// Longest back-off of a poll of something that is not finished yet: short enough for one that is made every two
/// seconds.
const POLL: Duration = Duration::from_millis(1750);
/// Longest back-off of a poll that finds nothing, as of an inbox.
const IDLE: Duration = Duration::from_millis(7750);

/// Number of short answers to different questions that count as one call without a new result.
const SHORT: u32 = 4;
/// Number of parallel calls that count as one more round.
const PARALLEL: u32 = 8;

/// Counts rounds of calls.
struct Rounds {
    count: u32,
    /// Calls that ran in parallel with a counted one.
    parallel: u32,
    /// When the earliest counted call was admitted.
    admitted: Tick,
    since: Tick,
}

impl Rounds {
    const fn new(latest: &Entry) -> Self {
        Self { count: 1, parallel: 0, admitted: latest.admitted, since: latest.settled }
    }

    fn add(&mut self, entry: &Entry) {
        if entry.settled < self.admitted {
            self.count += 1;
            self.admitted = entry.admitted;
        } else {
            self.parallel += 1;
            self.count += u32::from(self.parallel.is_multiple_of(PARALLEL));
        }
        self.since = entry.settled;
    }
}

/// Returns the loop that the latest call continues: the one that is furthest.
pub(super) fn find(history: &History, now: Tick, settings: &LoopSettings) -> Option<Finding> {
    let mut latest = history.latest(now, settings.window);
    let entry = latest.next()?;
    let earlier = latest;
    match entry.news {
        News::New => return storm(entry, earlier, now),
        News::Changed => return cycle(history, now, settings).or_else(|| storm(entry, earlier, now)),
        News::Unknown | News::Short | News::Old => {}
    }
    let found = [
        identical(entry, earlier.clone(), settings),
        cycle(history, now, settings),
        failing(entry, earlier.clone(), settings),
        nothing_new(entry, earlier.clone(), settings),
        storm(entry, earlier, now),
    ];
    // Of two that are equally far, the one that holds fewer calls back: it comes first above.
    found.into_iter().flatten().rev().max_by_key(|found| {
        let refused = found.refuse_at.is_some_and(|at| found.count >= at);
        (refused, found.steps, found.refuse_at.is_some())
    })
}

/// Returns a finding if it has got far enough for a warning.
fn finding(
    kind: Kind,
    scope: Scope,
    rounds: &Rounds,
    warn_at: u32,
    longest: Duration,
    refused: bool,
) -> Option<Finding> {
    let steps = rounds.count.checked_sub(warn_at)?;
    let refuse_at = refused.then(|| warn_at.saturating_mul(2));
    Some(Finding { kind, scope, count: rounds.count, refuse_at, steps, longest, since: rounds.since })
}

/// The identical call with the identical result. Successes are polls, which only have to slow down.
fn identical<'e>(entry: &Entry, earlier: impl Iterator<Item = &'e Entry>, settings: &LoopSettings) -> Option<Finding> {
    let signs = entry.result.signs;
    if entry.tolerated && !signs.failing {
        return None;
    }
    let (mut close, mut all) = (Rounds::new(entry), Rounds::new(entry));
    let mut in_a_row = true;
    for other in earlier {
        if other.key == entry.key {
            let (a, b) = (&other.result, &entry.result);
            if (signs.failing && a.shape != b.shape) || (!signs.failing && a.exact != b.exact) {
                break;
            }
            all.add(other);
            if in_a_row {
                close.add(other);
            }
        } else if matches!(other.news, News::New | News::Changed)
            || (matches!(other.news, News::Unknown | News::Short) && !signs.failing)
        {
            in_a_row = false;
            if !signs.failing {
                break;
            }
        }
    }
    let warn_at = settings.identical_calls;
    if !signs.failing {
        // Looking again at something that claims no progress is worth less each time.
        let longest = match (signs.waiting, signs.empty) {
            (true, _) => POLL,
            (false, true) => IDLE,
            (false, false) => 1024 * SECOND,
        };
        return finding(Kind::Unchanged, Scope::Call, &close, warn_at, longest, false);
    }
    finding(Kind::Retry, Scope::Call, &close, warn_at, 64 * SECOND, true)
        .or_else(|| finding(Kind::Retry, Scope::Call, &all, warn_at.saturating_mul(2), 64 * SECOND, true))
}

/// Two to four calls that follow each other again and again with the same results.
fn cycle(history: &History, now: Tick, settings: &LoopSettings) -> Option<Finding> {
    (2..=4).find_map(|calls: u32| {
        let period = usize::try_from(calls).ok()?;
        let entries = history.latest(now, settings.window);
        let shifted = entries.clone().skip(period);
        let matched = entries.clone().zip(shifted).take_while(|(later, earlier)| later.repeats(earlier)).count();
        let repeats = u32::try_from(matched / period + 1).ok()?;
        let steps = u32::try_from(matched + period).ok()?.checked_sub(settings.cycle_repeats.saturating_mul(calls))?;
        let polls = entries.clone().take(period).any(Entry::is_poll);
        let since = entries.clone().nth(matched + period - 1)?.settled;
        let longest = if polls { POLL } else { 64 * SECOND };
        // Calls of one period that are all the same are not a cycle.
        let mut keys = entries.take(period).map(|entry| entry.key);
        let first = keys.next()?;
        keys.any(|call| call != first).then_some(())?;
        Some(Finding {
            kind: Kind::Cycle,
            scope: Scope::Call,
            count: repeats,
            refuse_at: (!polls).then(|| settings.cycle_repeats.saturating_mul(2)),
            steps,
            longest,
            since,
        })
    })
}

/// A tool that fails for the same cause, whatever its arguments are. A success ends the loop; so does anything new
/// from another tool, if the failures are few.
fn failing<'e>(entry: &Entry, earlier: impl Iterator<Item = &'e Entry>, settings: &LoopSettings) -> Option<Finding> {
    if !entry.result.signs.failing {
        return None;
    }
    let (mut alike, mut any, mut open) = (Rounds::new(entry), Rounds::new(entry), true);
    for other in earlier {
        if other.key.tool != entry.key.tool {
            open &= other.news != News::New;
        } else if other.result.signs.failing {
            if open && other.result.shape == entry.result.shape {
                alike.add(other);
            }
            any.add(other);
        } else {
            break;
        }
    }
    let warn_at = settings.repeated_errors;
    finding(Kind::Failing, Scope::Tool, &alike, warn_at, 64 * SECOND, true)
        .or_else(|| finding(Kind::Failing, Scope::Tool, &any, warn_at.saturating_mul(3), 64 * SECOND, true))
}

/// No new result among the latest calls, of any tool.
///
/// A change whose result tells nothing neither counts nor ends the loop. After one, "in order" and "nothing found" are
/// answers again, and do not count. Short answers to different questions count a quarter. One call that outnumbers all others is a poll, which [`identical`] judges.
fn nothing_new<'e>(
    entry: &Entry,
    earlier: impl Iterator<Item = &'e Entry>,
    settings: &LoopSettings,
) -> Option<Finding> {
    if !matches!(entry.news, News::Old | News::Short) || entry.is_poll() {
        return None;
    }
    let mut rounds = Rounds::new(entry);
    let mut later = entry;
    let mut answers = 0;
    let mut short = u32::from(entry.news == News::Short);
    let (mut own, mut others) = (1, 0);
    for other in earlier {
        match other.news {
            News::New | News::Changed => break,
            News::Unknown => {
                let Signs { empty, fine, .. } = later.result.signs;
                answers += u32::from(later.news == News::Old && (fine || empty));
            }
            News::Short => short += 1,
            News::Old if !other.is_poll() => rounds.add(other),
            News::Old => {}
        }
        if other.key == entry.key {
            own += 1;
        } else {
            others += 1;
        }
        later = other;
    }
    if own > others + 1 && !entry.result.signs.failing {
        return None;
    }
    rounds.count = rounds.count.saturating_sub(answers + u32::from(entry.news == News::Short)) + short / SHORT;
    let warn_at = settings.identical_calls.saturating_add(settings.identical_calls / 2);
    finding(Kind::NothingNew, Scope::Tool, &rounds, warn_at, 64 * SECOND, true)
}

/// The identical call at a rate that no poll needs, whatever the results are.
fn storm<'e>(entry: &Entry, earlier: impl Iterator<Item = &'e Entry>, now: Tick) -> Option<Finding> {
    if entry.tolerated {
        return None;
    }
    let mut rounds = Rounds::new(entry);
    earlier
        .take_while(|other| now.since(other.settled) <= STORM_TIME)
        .filter(|other| other.key == entry.key)
        .for_each(|other| rounds.add(other));
    let found = finding(Kind::Storm, Scope::Call, &rounds, STORM, Duration::ZERO, false)?;
    Some(Finding { steps: 0, ..found })
}
