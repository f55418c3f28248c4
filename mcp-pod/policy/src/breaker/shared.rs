//! The breaker of all principals on one tool.

use std::sync::Arc;

use super::cycle::{Cycle, Phase};
use super::window::Window;
use super::{BreakerState, Closed, FORGET_AFTER, Uid};
use crate::model::Breaker;
use crate::tick::Tick;

/// A breaker that opens on failures that several principals saw.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) cycle: Cycle,
    window: Window,
    /// Principals with a probe on its way, also from earlier half-open phases. Each has one at a time, so that no
    /// principal can keep the others from probing.
    pub(super) probing: Vec<Uid>,
    /// The principal whose probe failed in this half-open phase.
    doubted_by: Option<Uid>,
}

impl Shared {
    /// Checks whether a call of the principal can pass, without taking anything.
    pub(super) fn has_room(&self, now: Tick, limit: u32, principal: &Uid) -> Result<(), Closed> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.cycle.has_room(now, || self.probing.len() < limit && !self.probing.contains(principal))
    }

    /// Takes a place among the probes, if the breaker is half-open. Returns the number of the half-open phase.
    pub(super) fn take(&mut self, principal: &Uid) -> Option<u64> {
        let phase = self.cycle.probed_phase()?;
        self.probing.push(Arc::clone(principal));
        Some(phase)
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
        if self.cycle.note_call(now) {
            self.window.clear();
        }
        match self.cycle.phase() {
            Phase::Closed => {
                self.window.push(settings.minimum_calls, principal, failed);
                (failed && self.window.is_bad(settings)).then(|| self.open(now, settings))
            }
            Phase::HalfOpen { .. } if probe != self.cycle.probed_phase() => None,
            Phase::HalfOpen { .. } if failed => {
                let first = self.doubted_by.get_or_insert_with(|| Arc::clone(principal));
                (first != principal).then(|| self.open(now, settings))
            }
            Phase::HalfOpen { .. } => {
                if !self.cycle.count_answer(settings) {
                    return None;
                }
                self.window.clear();
                self.cycle.close()
            }
            // The call began before the breaker opened.
            Phase::Open { .. } => None,
        }
    }

    fn open(&mut self, now: Tick, settings: &Breaker) -> BreakerState {
        self.doubted_by = None;
        self.window.clear();
        self.cycle.open(now, settings)
    }

    /// Returns whether nothing that the breaker knows matters any more.
    pub(super) fn is_forgotten(&self, now: Tick) -> bool {
        let healthy = self.cycle.is_closed() && self.window.total().failed == 0;
        self.probing.is_empty() && (healthy || self.cycle.idle_for(now) >= FORGET_AFTER)
    }
}
