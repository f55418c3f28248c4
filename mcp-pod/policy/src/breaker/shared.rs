//! The breaker of all principals on one tool.

use std::sync::Arc;

use super::window::Window;
use super::{BreakerState, Closed, FORGET_AFTER, PROBE_RETRY, Phase, Uid};
use crate::model::Breaker;
use crate::tick::Tick;

/// A breaker that opens on failures that several principals saw.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) phase: Phase,
    /// Number of half-open phases so far. The result of a probe of an earlier one shows nothing.
    half_opened: u64,
    window: Window,
    /// Principals with a probe on its way, also from earlier half-open phases. Each has one at a time, so that no
    /// principal can keep the others from probing.
    pub(super) probing: Vec<Uid>,
    /// The principal whose probe failed in this half-open phase.
    doubted_by: Option<Uid>,
    /// Time of the last call, or the end of the open phase.
    idle_since: Tick,
}

impl Shared {
    /// Checks whether a call of the principal can pass, without taking anything.
    pub(super) fn has_room(&self, now: Tick, limit: u32, principal: &Uid) -> Result<(), Closed> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        match self.phase {
            Phase::Closed => Ok(()),
            Phase::Open { until } => Err(Closed { retry_after: until.since(now) }),
            Phase::HalfOpen { .. } if self.probing.len() < limit && !self.probing.contains(principal) => Ok(()),
            Phase::HalfOpen { .. } => Err(Closed { retry_after: PROBE_RETRY }),
        }
    }

    /// Takes a place among the probes, if the breaker is half-open. Returns the number of the half-open phase.
    pub(super) fn take(&mut self, principal: &Uid) -> Option<u64> {
        matches!(self.phase, Phase::HalfOpen { .. }).then(|| {
            self.probing.push(Arc::clone(principal));
            self.half_opened
        })
    }

    /// Frees the place of a probe.
    pub(super) fn give_back(&mut self, principal: &Uid) {
        if let Some(index) = self.probing.iter().position(|probing| probing == principal) {
            self.probing.swap_remove(index);
        }
    }

    /// Records a call of the principal. `probe` is the half-open phase whose probe it was. Returns the new state if it
    /// changed.
    pub(super) fn record(
        &mut self,
        now: Tick,
        settings: &Breaker,
        probe: Option<u64>,
        principal: &Uid,
        failed: bool,
    ) -> Option<BreakerState> {
        if now.since(self.idle_since) >= FORGET_AFTER {
            self.window.clear();
        }
        self.idle_since = now;
        match self.phase {
            Phase::Closed => {
                self.window.push(settings.minimum_calls, principal, failed);
                (failed && self.window.is_bad(settings)).then(|| self.open(now, settings))
            }
            Phase::HalfOpen { .. } if probe != Some(self.half_opened) => None,
            Phase::HalfOpen { .. } if failed => {
                let first = self.doubted_by.get_or_insert_with(|| Arc::clone(principal));
                (first != principal).then(|| self.open(now, settings))
            }
            Phase::HalfOpen { answered } => {
                let answered = answered + 1;
                if answered < settings.half_open_calls {
                    self.phase = Phase::HalfOpen { answered };
                    return None;
                }
                self.phase = Phase::Closed;
                self.window.clear();
                Some(BreakerState::Closed)
            }
            // The call began before the breaker opened.
            Phase::Open { .. } => None,
        }
    }

    fn open(&mut self, now: Tick, settings: &Breaker) -> BreakerState {
        self.half_opened += 1;
        self.doubted_by = None;
        self.window.clear();
        self.idle_since = now.plus(settings.open_for);
        self.phase = Phase::Open { until: self.idle_since };
        BreakerState::Open
    }

    /// Returns whether nothing that the breaker knows matters any more.
    pub(super) fn is_forgotten(&self, now: Tick) -> bool {
        let healthy = self.phase == Phase::Closed && self.window.total().failed == 0;
        self.probing.is_empty() && (healthy || now.since(self.idle_since) >= FORGET_AFTER)
    }
}
