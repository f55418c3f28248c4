//! A throttle for log and audit lines that callers could multiply: at most one line per second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The second in which a line was last written.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(AtomicU64);

impl LogThrottle {
    /// Returns a throttle that has not allowed a line yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns whether a line may be written now. At most once per second.
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
    fn a_line_is_allowed_once_a_second() {
        let throttle = LogThrottle::new();
        let allows = |millis| throttle.allows_at(Duration::from_millis(millis));
        assert!(allows(5_000));
        assert!(!allows(5_001));
        assert!(!allows(5_999));
        assert!(allows(6_000));
    }
}
