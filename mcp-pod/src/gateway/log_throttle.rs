//! Log lines that callers could multiply are written once a second at most; the audit trail has every case.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When something was last said.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(AtomicU64);

impl LogThrottle {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether it may be said now.
    pub(crate) fn allows(&self) -> bool {
        self.allows_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn allows_at(&self, now: Duration) -> bool {
        let second = now.as_secs();
        self.0.swap(second, Ordering::Relaxed) != second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_second() {
        let throttle = LogThrottle::new();
        let allows = |millis| throttle.allows_at(Duration::from_millis(millis));
        assert!(allows(5_000));
        assert!(!allows(5_001));
        assert!(!allows(5_999));
        assert!(allows(6_000));
    }
}
