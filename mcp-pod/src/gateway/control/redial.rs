//! What lies between two streams: how long to wait, and what to say of it.

use std::time::Duration;

use super::session::SessionEnd;

/// The first delays: short, because one of two replicas is expected to refuse.
const FIRST: std::ops::RangeInclusive<u64> = 50..=250;
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(2);
/// Failures in a row after which delays begin to grow.
const PATIENCE: u32 = 4;

/// Counts failures in a row.
#[derive(Debug)]
pub(super) struct Redial {
    failures: u32,
    said: String,
}

impl Redial {
    pub(super) fn new() -> Self {
        Self { failures: 0, said: String::new() }
    }

    /// A stream is up: the next failure is the first of its row.
    pub(super) fn connected(&mut self) {
        self.failures = 0;
        self.said.clear();
    }

    /// A stream ended, or never came up: how long to wait before the next.
    pub(super) fn after(&mut self, end: &SessionEnd) -> Duration {
        let text = super::intake::chain(end);
        // A follower's answer is half of all dials, and the same failure again is no news.
        if end.is_not_leader() || text == self.said {
            tracing::debug!(error = text, "control stream is down");
        } else {
            tracing::warn!(error = text, "control stream is down");
            self.said = text;
        }
        self.failures = self.failures.saturating_add(1);
        delay(self.failures, random())
    }
}

/// 50 to 250 ms, doubled for each failure past the first few, at most two seconds.
fn delay(failures: u32, random: u64) -> Duration {
    let (least, most) = (*FIRST.start(), *FIRST.end());
    let base = Duration::from_millis(least + random % (most - least + 1));
    let doublings = failures.saturating_sub(PATIENCE).min(8);
    (base * (1 << doublings)).min(LONGEST)
}

/// Any number; zero where the system has no randomness, which costs jitter and nothing else.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_start_short_and_jittered_and_grow_to_two_seconds() {
        for random in [0, 1, 77, 200, u64::MAX] {
            for failures in 1..=PATIENCE {
                let delay = delay(failures, random);
                assert!((Duration::from_millis(50)..=Duration::from_millis(250)).contains(&delay), "{delay:?}");
            }
            assert_eq!(delay(u32::MAX, random), LONGEST);
        }
        assert_eq!(delay(PATIENCE + 1, 0), Duration::from_millis(100));
        assert_ne!(delay(1, 3), delay(1, 4));
    }
}
