//! The phases of a breaker, the same for the own and the shared one: closed, open, half-open.

use std::time::Duration;

use super::{BreakerState, Closed, FORGET_AFTER, PROBE_RETRY};
use crate::model::Breaker;
use crate::tick::Tick;

/// Phase of a breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Closed,
    Open {
        until: Tick,
    },
    HalfOpen {
        /// Probes that were answered.
        answered: u32,
    },
}

/// The phase of a breaker, and what decides about the next one.
#[derive(Debug, Default)]
pub(super) struct Cycle {
    phase: Phase,
    /// Number of half-open phases so far. The result of a probe of an earlier one shows nothing.
    half_opened: u64,
    /// Time of the last call, or the end of the open phase.
    idle_since: Tick,
}

impl Cycle {
    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Becomes half-open if the time of the open phase is over. Returns the new state if it changed.
    pub(super) fn advance(&mut self, now: Tick) -> Option<BreakerState> {
        match self.phase {
            Phase::Open { until } if now >= until => {
                self.phase = Phase::HalfOpen { answered: 0 };
                Some(BreakerState::HalfOpen)
            }
            _ => None,
        }
    }

    /// Checks whether a call can pass. `has_place` says whether there is a place among the probes for it.
    pub(super) fn has_room(&self, now: Tick, has_place: impl FnOnce() -> bool) -> Result<(), Closed> {
        let retry_after = match self.phase {
            Phase::Closed => return Ok(()),
            Phase::Open { until } => until.since(now),
            Phase::HalfOpen { .. } if has_place() => return Ok(()),
            Phase::HalfOpen { .. } => PROBE_RETRY,
        };
        Err(Closed { retry_after })
    }

    /// Returns the number of the half-open phase, if it is one: the next call is a probe.
    pub(super) fn probed_phase(&self) -> Option<u64> {
        matches!(self.phase, Phase::HalfOpen { .. }).then_some(self.half_opened)
    }

    /// Returns for how long there was no call.
    pub(super) fn idle_for(&self, now: Tick) -> Duration {
        now.since(self.idle_since)
    }

    /// Notes a call. Returns whether the calls before it are too long ago to count.
    pub(super) fn note_call(&mut self, now: Tick) -> bool {
        let is_late = self.idle_for(now) >= FORGET_AFTER;
        self.idle_since = now;
        is_late
    }

    pub(super) fn open(&mut self, now: Tick, settings: &Breaker) -> BreakerState {
        self.half_opened += 1;
        self.idle_since = now.plus(settings.open_for);
        self.phase = Phase::Open { until: self.idle_since };
        BreakerState::Open
    }

    /// Counts a probe that was answered. Returns whether these are enough to close the breaker.
    pub(super) fn count_answer(&mut self, settings: &Breaker) -> bool {
        let Phase::HalfOpen { answered } = &mut self.phase else { return false };
        *answered += 1;
        *answered >= settings.half_open_calls
    }

    /// Closes the breaker. Returns the new state if it changed.
    pub(super) fn close(&mut self) -> Option<BreakerState> {
        (std::mem::take(&mut self.phase) != Phase::Closed).then_some(BreakerState::Closed)
    }
}
