//! Pauses before a tool server that ended is started again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

const SHORTEST_DELAY: Duration = Duration::from_millis(125);
const LONGEST_DELAY: Duration = Duration::from_secs(15);
/// Delays double from run to run. The jitter adds up to the same again, so that servers that failed together do not
/// start together: pauses are 125 to 250 ms at first and 15 to 30 s in the end.
const DELAYS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(SHORTEST_DELAY)
    .with_max_delay(LONGEST_DELAY)
    .with_jitter()
    .without_max_times();
/// A run of at least this length resets the pauses.
const STABLE_RUN: Duration = Duration::from_secs(60);

/// The pauses between the runs of one tool server.
#[derive(Debug)]
pub(super) struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(DELAYS.build())
    }
}

impl Backoff {
    /// Returns the pause after a run that lasted `ran`.
    pub(super) fn pause_after(&mut self, ran: Duration) -> Duration {
        if ran >= STABLE_RUN {
            *self = Self::default();
        }
        self.0.next().unwrap_or(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_a_stable_run_resets_them() {
        let mut backoff = Backoff::default();
        let first = backoff.pause_after(Duration::ZERO);
        assert!((SHORTEST_DELAY..=SHORTEST_DELAY * 2).contains(&first));
        for _ in 0..20 {
            backoff.pause_after(Duration::ZERO);
        }
        let late = backoff.pause_after(Duration::ZERO);
        assert!((LONGEST_DELAY..=LONGEST_DELAY * 2).contains(&late));
        assert!(backoff.pause_after(STABLE_RUN) <= SHORTEST_DELAY * 2);
    }
}
