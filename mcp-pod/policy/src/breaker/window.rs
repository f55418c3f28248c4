//! The latest calls of a tool over all principals, and what they are evidence of.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;

use super::Uid;
use crate::model::Breaker;

/// The latest calls.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The oldest call first: who made it, and whether it failed.
    calls: VecDeque<(Uid, bool)>,
    by_principal: HashMap<Uid, Evidence>,
}

/// Numbers of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) calls: usize,
    pub(super) failed: usize,
}

impl Evidence {
    fn add(&mut self, failed: bool) {
        self.calls += 1;
        self.failed += usize::from(failed);
    }

    fn remove(&mut self, failed: bool) {
        self.calls = self.calls.saturating_sub(1);
        self.failed = self.failed.saturating_sub(usize::from(failed));
    }

    fn without(self, other: Self) -> Self {
        Self { calls: self.calls.saturating_sub(other.calls), failed: self.failed.saturating_sub(other.failed) }
    }

    fn reaches(self, percent: u32) -> bool {
        self.failed > 0 && self.failed * 100 >= count(percent) * self.calls
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Window {
    /// Forgets all calls.
    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.by_principal.clear();
    }

    /// Returns the numbers of all calls.
    pub(super) fn total(&self) -> Evidence {
        let failed = self.by_principal.values().map(|evidence| evidence.failed).sum();
        Evidence { calls: self.calls.len(), failed }
    }

    /// Adds a call. Calls of principals that fill more than a quarter of the window make room first, so that one with many
    /// calls cannot push out what the others saw.
    pub(super) fn push(&mut self, size: u32, principal: &Uid, failed: bool) {
        let size = count(size);
        self.calls.push_back((Arc::clone(principal), failed));
        self.by_principal.entry(Arc::clone(principal)).or_default().add(failed);
        while self.calls.len() > size {
            let too_many = |evidence: &Evidence| evidence.calls * 4 > size;
            let oldest = if self.by_principal.values().any(too_many) {
                self.calls.iter().position(|(by, _)| self.by_principal.get(by).is_some_and(too_many))
            } else {
                None
            };
            let Some((by, failed)) = self.calls.remove(oldest.unwrap_or(0)) else { return };
            if let Some(evidence) = self.by_principal.get_mut(&by) {
                evidence.remove(failed);
                if evidence.calls == 0 {
                    self.by_principal.remove(&by);
                }
            }
        }
    }

    /// Returns whether enough calls failed: of all, and also of those that remain without the principal whose calls failed
    /// most. The remaining ones have to be at least a quarter of the window.
    pub(super) fn is_bad(&self, settings: &Breaker) -> bool {
        let (size, total) = (count(settings.minimum_calls), self.total());
        let most = self.by_principal.values().max_by_key(|evidence| evidence.failed).copied().unwrap_or_default();
        let others = total.without(most);
        total.calls >= size
            && total.reaches(settings.error_percent)
            && others.calls >= size.div_ceil(4)
            && others.reaches(settings.error_percent)
    }
}
