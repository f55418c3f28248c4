//! Budgets that a test can look into.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mcp_fleet_policy::denial::Denial;
use mcp_pod::gateway::budget::{Attempt, Budgets, CallFacts, Charge, Reservation};
use parking_lot::Mutex;

/// Reserves everything unless told to refuse.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    refusal: Mutex<Option<Denial>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    reserved: AtomicU64,
    full: AtomicU64,
    nothing: AtomicU64,
}

#[derive(Debug)]
struct Reserved {
    counts: Arc<Counts>,
    settled: bool,
}

impl Purse {
    /// Refuses everything from now on.
    pub(crate) fn refuse(&self, denial: Denial) {
        *self.refusal.lock() = Some(denial);
    }

    /// Reservations, those settled in full (or lost), and those settled for nothing.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let Counts { reserved, full, nothing } = &*self.counts;
        (reserved.load(Ordering::SeqCst), full.load(Ordering::SeqCst), nothing.load(Ordering::SeqCst))
    }
}

impl Budgets for Purse {
    fn reserve(&self, _call: &Arc<CallFacts>) -> Attempt {
        if let Some(denial) = self.refusal.lock().clone() {
            return Attempt::Ready(Err(denial));
        }
        self.counts.reserved.fetch_add(1, Ordering::SeqCst);
        Attempt::Ready(Ok(Box::new(Reserved { counts: Arc::clone(&self.counts), settled: false })))
    }
}

impl Reservation for Reserved {
    fn settle(mut self: Box<Self>, charge: Charge) {
        self.settled = true;
        let counter = if charge == Charge::Full { &self.counts.full } else { &self.counts.nothing };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.settled {
            self.counts.full.fetch_add(1, Ordering::SeqCst);
        }
    }
}
