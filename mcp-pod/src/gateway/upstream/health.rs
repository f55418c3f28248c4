//! Whether a tool server answered its last request.

use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// Result of the last request, shared without a lock.
#[derive(Debug, Default)]
pub(super) struct Health(AtomicU8);

impl Health {
    pub(super) fn note(&self, up: bool) {
        let state = if up { UP } else { DOWN };
        // Nearly always unchanged: reading does not take the cache line from other threads.
        if self.0.load(Ordering::Relaxed) != state {
            self.0.store(state, Ordering::Relaxed);
        }
    }

    pub(super) fn is_up(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            state => Some(state == UP),
        }
    }
}
