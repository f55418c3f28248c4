//! What happens between two control streams: how long to wait, and which failures to log.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use super::stream::StreamEnd;

/// Delays between dials. Jitter adds up to the delay itself, so the first four lie between 60 and 250 ms: short,
/// because one of two replicas is expected to refuse. No delay exceeds two seconds.
const DELAYS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(60))
    .with_factor(1.25)
    .with_max_delay(Duration::from_secs(1))
    .with_jitter()
    .without_max_times();

/// Decides when to dial again after a stream ended or never came up.
#[derive(Debug)]
pub(super) struct Redial {
    delays: ExponentialBackoff,
    /// Text of the last failure that was logged.
    logged: String,
}

impl Redial {
    pub(super) fn new() -> Self {
        Self { delays: DELAYS.build(), logged: String::new() }
    }

    /// Notes that a stream is up: delays start from the shortest again.
    pub(super) fn connected(&mut self) {
        *self = Self::new();
    }

    /// Logs why a stream ended, and returns how long to wait before the next dial.
    pub(super) fn after(&mut self, end: &StreamEnd) -> Duration {
        let text = super::intake::chain(end);
        // Half of all dials reach a follower, and the same failure twice in a row says nothing new.
        if end.is_not_leader() || text == self.logged {
            tracing::debug!(error = text, "control stream is down");
        } else {
            tracing::warn!(error = text, "control stream is down");
            self.logged = text;
        }
        self.next_delay()
    }

    fn next_delay(&mut self) -> Duration {
        // There is always another delay; one second if there were none.
        self.delays.next().unwrap_or(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_start_short_and_jittered_and_grow_to_at_most_two_seconds() {
        let mut redial = Redial::new();
        for _ in 0..4 {
            let delay = redial.next_delay();
            assert!((Duration::from_millis(50)..=Duration::from_millis(250)).contains(&delay), "{delay:?}");
        }
        let later: Vec<_> = (0..100).map(|_| redial.next_delay()).collect();
        assert!(later.iter().all(|delay| *delay <= Duration::from_secs(2)), "{later:?}");
        assert!(later[50..].iter().all(|delay| *delay >= Duration::from_secs(1)), "{later:?}");
        assert_ne!(later[98], later[99], "delays have no jitter");
        redial.connected();
        assert!(redial.next_delay() <= Duration::from_millis(250));
    }
}
