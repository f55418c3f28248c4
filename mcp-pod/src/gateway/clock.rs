//! The time of a request: on the wall clock, which tokens name, and on the monotonic clock, which cannot be set.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    /// Time since the Unix epoch.
    unix: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix }
    }

    /// Returns the moment in Unix seconds, rounded down.
    pub(crate) fn unix_seconds(self) -> i64 {
        i64::try_from(self.unix.as_secs()).unwrap_or(i64::MAX)
    }

    /// Returns the Unix second that the wall clock will show at this time on the monotonic clock.
    pub(crate) fn unix_of(self, instant: Instant) -> i64 {
        let unix = self.unix + instant.saturating_duration_since(self.instant);
        i64::try_from(unix.as_secs()).unwrap_or(i64::MAX)
    }

    /// Returns the time on the monotonic clock at which the wall clock will show this many Unix seconds, or this moment
    /// if it already shows more.
    pub(crate) fn instant_of(self, unix_seconds: i64) -> Instant {
        let unix = Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0));
        // An expiry too far away to be represented is as good as one in a year.
        let until = unix.saturating_sub(self.unix).min(Duration::from_hours(24 * 365));
        self.instant + until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_have_a_place_on_the_monotonic_clock() {
        let now = Moment { instant: Instant::now(), unix: Duration::from_millis(10_250) };
        assert_eq!(now.unix_seconds(), 10);
        assert_eq!(now.instant_of(12), now.instant + Duration::from_millis(1750));
        assert_eq!(now.unix_of(now.instant_of(12)), 12);
        assert_eq!(now.instant_of(10), now.instant);
        assert_eq!(now.instant_of(-5), now.instant);
        assert!(now.instant_of(i64::MAX) > now.instant);
    }
}
