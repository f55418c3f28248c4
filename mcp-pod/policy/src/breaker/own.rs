//! The breaker of one principal on one tool.

use super::cycle::{Cycle, Phase};
use super::{BreakerState, Closed, FORGET_AFTER};
use crate::model::Breaker;
use crate::tick::Tick;

/// The largest window, in calls: one bit for each.
pub(crate) const MAX_WINDOW: u32 = 128;

/// A breaker that opens on the failures and the slow calls of its principal.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) cycle: Cycle,
    /// The latest calls, one bit for each, the newest first.
    failed: u128,
    slow: u128,
    calls: u32,
    /// Probes on their way, also those of earlier half-open phases.
    pub(super) probes: u32,
}

impl Own {
    /// Checks whether a call can pass, without taking anything.
    pub(super) fn has_room(&self, now: Tick, limit: u32) -> Result<(), Closed> {
        self.cycle.has_room(now, || self.probes < limit)
    }

    /// Takes a place among the probes, if the breaker is half-open. Returns the number of the half-open phase.
    pub(super) fn take(&mut self) -> Option<u64> {
        let phase = self.cycle.probed_phase()?;
        self.probes += 1;
        Some(phase)
    }

    /// Frees the place of a probe.
    pub(super) const fn give_back(&mut self) {
        self.probes = self.probes.saturating_sub(1);
    }

    /// Records a call. `probe` is the half-open phase whose probe it was. Returns the new state if it changed.
    pub(super) fn record(
        &mut self,
        now: Tick,
        settings: &Breaker,
        probe: Option<u64>,
        failed: bool,
        slow: bool,
    ) -> Option<BreakerState> {
        if self.cycle.note_call(now) {
            (self.failed, self.slow, self.calls) = (0, 0, 0);
        }
        match self.cycle.phase() {
            Phase::Closed => {
                self.push(settings.minimum_calls, failed, slow);
                self.is_bad(settings).then(|| self.open(now, settings))
            }
            Phase::HalfOpen { .. } if probe != self.cycle.probed_phase() => None,
            Phase::HalfOpen { .. } if failed || slow => Some(self.open(now, settings)),
            Phase::HalfOpen { .. } => self.cycle.count_answer(settings).then(|| self.close()).flatten(),
            // The call began before the breaker opened.
            Phase::Open { .. } => None,
        }
    }

    /// Opens the breaker.
    pub(super) fn open(&mut self, now: Tick, settings: &Breaker) -> BreakerState {
        self.cycle.open(now, settings)
    }

    /// Closes the breaker and forgets the calls. Probes on their way keep their places. Returns the new state if it
    /// changed.
    pub(super) fn close(&mut self) -> Option<BreakerState> {
        (self.failed, self.slow, self.calls) = (0, 0, 0);
        self.cycle.close()
    }

    fn push(&mut self, window: u32, failed: bool, slow: bool) {
        let window = window.min(MAX_WINDOW);
        let mask = u128::MAX.checked_shr(MAX_WINDOW - window).unwrap_or(0);
        self.failed = (self.failed << 1 | u128::from(failed)) & mask;
        self.slow = (self.slow << 1 | u128::from(slow)) & mask;
        self.calls = (self.calls + 1).min(window);
    }

    fn is_bad(&self, settings: &Breaker) -> bool {
        let reaches = |count: u32, percent: u32| count * 100 >= percent * self.calls;
        let slow = settings.slow_calls.as_ref().is_some_and(|slow| reaches(self.slow.count_ones(), slow.percent));
        self.calls >= settings.minimum_calls && (reaches(self.failed.count_ones(), settings.error_percent) || slow)
    }

    /// Returns whether nothing that the breaker knows matters any more.
    pub(super) fn is_forgotten(&self, now: Tick) -> bool {
        let healthy = self.cycle.is_closed() && self.failed == 0 && self.slow == 0;
        self.probes == 0 && (healthy || self.cycle.idle_for(now) >= FORGET_AFTER)
    }
}
