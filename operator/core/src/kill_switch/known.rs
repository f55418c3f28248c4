//! The state of the kill switch that this leader last read.

use std::time::Instant;

use tokio::sync::{Mutex, MutexGuard, watch};

use super::Switch;

/// A state of the kill switch, and when its read began.
#[derive(Clone, Debug)]
pub struct Known {
    pub switch: Switch,
    pub read: Instant,
}

/// The state that was last read; none before the first read of a leader.
#[derive(Debug)]
pub struct KnownSwitch {
    known: watch::Sender<Option<Known>>,
    reading: Mutex<()>,
}

impl Default for KnownSwitch {
    fn default() -> Self {
        Self { known: watch::Sender::new(None), reading: Mutex::new(()) }
    }
}

impl KnownSwitch {
    /// Subscribes to changes. A read that finds the same state changes only its time, and is not announced.
    pub fn subscribe(&self) -> watch::Receiver<Option<Known>> {
        self.known.subscribe()
    }

    /// Forgets the state, which becomes outdated when another replica leads.
    pub fn clear(&self) {
        self.known.send_replace(None);
    }

    /// Waits until no other read is under way.
    pub async fn reading(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Sets the state. Returns the one before.
    pub fn set(&self, new: Known) -> Option<Known> {
        let mut before = None;
        self.known.send_if_modified(|known| {
            let changes = known.as_ref().is_none_or(|known| known.switch != new.switch);
            before = known.replace(new);
            changes
        });
        before
    }
}
