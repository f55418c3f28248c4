//! Pauses between attempts and between periodic passes. All are jittered: what failed or started together is not tried
//! again together.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The growing pauses of one operation that keeps failing.
#[derive(Debug)]
pub struct Backoff {
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `longest`. Jitter adds up to as much again to each pause.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest);
        Self { pauses: builder.without_max_times().with_jitter().build(), longest }
    }

    /// Returns the pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }
}

/// Returns a random duration within a quarter of `pause`, for work that is done periodically.
pub fn jittered(pause: Duration) -> Duration {
    pause.saturating_mul(768 + fastrand::u32(..512)) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(4));
            assert!((3.0..=5.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
        assert!(jittered(Duration::MAX) > Duration::ZERO);
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        let pauses: Vec<_> = (0..20).map(|_| backoff.next_pause()).collect();
        assert!((0.1..0.2).contains(&pauses[0].as_secs_f64()), "{pauses:?}");
        assert!(pauses[19] >= Duration::from_secs(3) && pauses.iter().all(|pause| pause.as_secs_f64() <= 6.0));
    }
}
