//! Pauses between starts of a server that keeps ending.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// A run this long was a good one.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// Doubles from run to run.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    bad_runs: u32,
}

impl Backoff {
    /// The pause after a run that lasted `ran`, with jitter, so that servers that fell together do not rise together.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD_RUN {
            self.bad_runs = 0;
        }
        let pause = SHORTEST.saturating_mul(1 << self.bad_runs.min(16)).min(LONGEST);
        self.bad_runs += 1;
        pause.mul_f64(0.5 + random_share() / 2.0)
    }
}

/// Between 0 and 1; 0 if there is no randomness, which only costs the jitter.
fn random_share() -> f64 {
    let mut bytes = [0];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(bytes[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_a_good_run_resets_them() {
        let mut backoff = Backoff::default();
        let first = backoff.after(Duration::ZERO);
        assert!((SHORTEST / 2..=SHORTEST).contains(&first));
        for _ in 0..20 {
            backoff.after(Duration::ZERO);
        }
        let late = backoff.after(Duration::ZERO);
        assert!((LONGEST / 2..=LONGEST).contains(&late));
        assert!(backoff.after(GOOD_RUN) <= SHORTEST);
    }
}
