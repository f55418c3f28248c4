//! Calls in flight of one server, over all principals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::division::{Demand, Part};
use super::{Counts, SLOT_RETRY};
use crate::denial::Denial;
use crate::reason::Reason;

/// Limits and calls in flight of a server.
#[derive(Debug, Default)]
pub(super) struct Slots {
    max: AtomicU32,
    /// The part of `max` that this gateway may use.
    part: AtomicU32,
    /// Calls that one principal may have in flight.
    share: AtomicU32,
    used: AtomicU32,
    /// Calls refused for want of a slot since the last report.
    refused: AtomicU32,
}

/// Calls in flight of one principal, by server. Servers without any have no entry.
#[derive(Debug, Default)]
pub(super) struct Shares(Vec<(usize, u32)>);

impl Slots {
    /// Sets the limit, and the share of each of the principals that may call the server.
    pub(super) fn set_limits(&self, max: u32, principals: usize) {
        let share = if principals > 1 { max.div_ceil(2) } else { max };
        self.max.store(max, Ordering::Relaxed);
        self.share.store(share, Ordering::Relaxed);
    }

    /// Returns the limit.
    pub(super) fn limit(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets the share of the limit that this gateway may use; all of it if none is given.
    pub(super) fn divide(&self, share: Option<u32>) {
        let Part { limit: _, share } = Part::new(self.max.load(Ordering::Relaxed), share);
        self.part.store(share, Ordering::Relaxed);
    }

    /// Returns how much of the limit this gateway could use: what is in use, and what was refused since the last time. `ends` is
    /// whether another time begins.
    pub(super) fn demand(&self, ends: bool) -> Demand {
        let (limit, share) = (self.max.load(Ordering::Relaxed), self.part.load(Ordering::Relaxed));
        let used = self.used.load(Ordering::Relaxed);
        let refused = if ends { self.refused.swap(0, Ordering::Relaxed) } else { self.refused.load(Ordering::Relaxed) };
        let wanted = used.saturating_add(refused).min(limit);
        Demand { limit, share, used, wanted }
    }

    /// Takes one slot for a principal that has `own` calls in flight on this server.
    pub(super) fn take(&self, own: u32, counts: Counts) -> Result<(), Denial> {
        let (max, share) = (self.max.load(Ordering::Relaxed), self.share.load(Ordering::Relaxed));
        let full = |reason, limit| Denial { retry_after: Some(SLOT_RETRY), ..Denial::new(reason).with_limit(limit) };
        if own >= share && share < max {
            let limit = format!(
                "this principal may have {share} of the server's {max} calls in flight, because other principals may call \
                 it too"
            );
            return Err(full(Reason::ConcurrencyLimited, limit));
        }
        let part = self.part.load(Ordering::Relaxed);
        let one_more = |used: u32| (used < part).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).map(drop).map_err(|_| {
            self.refused.fetch_add(counts.number(), Ordering::Relaxed);
            full(Reason::ServerConcurrencyLimited, format!("the server may have {max} calls in flight"))
        })
    }

    /// Takes one slot, whether there is one or not.
    pub(super) fn occupy(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one slot back.
    pub(super) fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shares {
    /// Returns the key of a server. Each call in flight has a reference to the slots, so while there is an entry no other
    /// server has this address.
    fn key(server: &Arc<Slots>) -> usize {
        Arc::as_ptr(server).addr()
    }

    /// Returns the number of calls in flight on a server.
    pub(super) fn on(&self, server: &Arc<Slots>) -> u32 {
        let key = Self::key(server);
        self.0.iter().find(|(known, _)| *known == key).map_or(0, |(_, calls)| *calls)
    }

    /// Counts a call on a server.
    pub(super) fn add(&mut self, server: &Arc<Slots>) {
        let key = Self::key(server);
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, calls)) => *calls = calls.saturating_add(1),
            None => self.0.push((key, 1)),
        }
    }

    /// Counts a call on a server as ended.
    pub(super) fn remove(&mut self, server: &Arc<Slots>) {
        let key = Self::key(server);
        let Some(index) = self.0.iter().position(|(known, _)| *known == key) else { return };
        match self.0.get_mut(index) {
            Some((_, calls)) if *calls > 1 => *calls -= 1,
            _ => drop(self.0.swap_remove(index)),
        }
    }
}
