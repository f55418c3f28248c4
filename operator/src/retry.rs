//! Pauses that differ from each other.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Between three quarters and five quarters of it, so that what failed together is not tried again together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    let parts = u32::try_from(random % 512).unwrap_or(256);
    pause.saturating_mul(768 + parts) / 1024
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
}
