//! A bound on the log lines of each place in the code.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::dropped;

/// Lines of one place that are written at once.
const BURST: f64 = 10.0;
/// Lines of one place that are written per second in the long run.
const PER_SECOND: f64 = 1.0;

/// What each place in the code has left of its allowance.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    allowances: Mutex<HashMap<Identifier, Allowance>>,
}

#[derive(Clone, Copy, Debug)]
struct Allowance {
    remaining: f64,
    refilled_at: Instant,
}

impl Throttle {
    fn allows(&self, place: Identifier, now: Instant) -> bool {
        self.allowances.lock().entry(place).or_insert_with(|| Allowance::new(now)).take(now)
    }
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self { remaining: BURST, refilled_at: now }
    }

    /// Takes one line, if there is one left.
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        self.remaining = (self.remaining + elapsed * PER_SECOND).min(BURST);
        self.refilled_at = now;
        let allowed = self.remaining >= 1.0;
        if allowed {
            self.remaining -= 1.0;
        }
        allowed
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Lines for debugging are written only on request, and then all of them are wanted.
        if *event.metadata().level() > Level::INFO || self.allows(event.metadata().callsite(), Instant::now()) {
            return true;
        }
        dropped::count_repeated();
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Duration;

    use tracing::{debug, info, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_from_one_place_leaves_room_for_other_lines() {
        let lines = Lines::default();
        let writer = lines.clone();
        let written = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(Throttle::default()).with(written);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..10_000 {
                warn!("flood");
            }
            info!("other");
            for _ in 0..100 {
                debug!("on request");
            }
        });
        let text = String::from_utf8(lines.0.lock().clone()).unwrap_or_default();
        let count = |message: &str| text.matches(message).count();
        assert_eq!((count("flood"), count("other"), count("on request")), (10, 1, 100));
    }

    #[test]
    fn a_place_that_was_throttled_gets_a_line_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut count = |second| (0..50).filter(|_| allowance.take(start + Duration::from_secs(second))).count();
        assert_eq!([count(0), count(1), count(2), count(5), count(60)], [10, 1, 1, 3, 10]);
    }
}
