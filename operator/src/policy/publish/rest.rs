//! The rest between two publications of a tenant, so that a tenant whose objects change all the time does not compile all
//! the time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::worker::Signals;

/// While a tenant's objects keep changing, its worker rests this many times as long as the last publication took, and at
/// most for [`LONGEST_REST`]. So a mass of objects is compiled a few times, and not once for each object.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(2);

/// The rest of a worker after a publication.
#[derive(Debug, Default)]
pub(super) struct Rest {
    over: Option<tokio::time::Instant>,
}

impl Rest {
    /// Begins after a publication that took this long.
    pub(super) fn begin(&mut self, took: Duration) {
        self.over = Some(tokio::time::Instant::now() + took.saturating_mul(REST).min(LONGEST_REST));
    }

    /// Waits until the rest is over, or until something urgent changes. Returns whether something urgent has changed.
    pub(super) async fn until_over(&self, signals: &Signals) -> bool {
        loop {
            if signals.urgent.swap(false, Ordering::Relaxed) {
                return true;
            }
            let Some(over) = self.over.filter(|over| *over > tokio::time::Instant::now()) else { return false };
            tokio::select! {
                () = tokio::time::sleep_until(over) => {}
                () = signals.changed.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use tokio::sync::watch;

    use super::*;

    fn signals() -> Signals {
        let proven = watch::channel(None).1;
        Signals {
            changed: Arc::default(),
            urgent: Arc::default(),
            touched: Arc::default(),
            proven,
            since: Instant::now(),
        }
    }

    /// Returns how long a worker rests whose last publication took `took` and ended `ago`.
    async fn rested(signals: &Signals, took: Duration, ago: Duration) -> Duration {
        let mut rest = Rest::default();
        rest.begin(took);
        tokio::time::advance(ago).await;
        let started = tokio::time::Instant::now();
        rest.until_over(signals).await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_rests_in_proportion_to_its_work() {
        let (signals, ms) = (signals(), Duration::from_millis);
        assert_eq!(rested(&signals, ms(10), ms(0)).await.as_millis() / 10, 4);
        assert_eq!(rested(&signals, ms(10), ms(100)).await, ms(0), "a single change is published at once");
        assert!(rested(&signals, ms(60_000), ms(0)).await <= LONGEST_REST + ms(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stops_calls_ends_the_rest() {
        let signals = signals();
        let suspend = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            signals.changed.notify_one();
            tokio::time::sleep(Duration::from_millis(100)).await;
            signals.urgent.store(true, Ordering::Relaxed);
            signals.changed.notify_one();
        };
        let (rested, ()) = tokio::join!(rested(&signals, Duration::from_secs(1), Duration::ZERO), suspend);
        assert!((190..=210).contains(&rested.as_millis()), "{rested:?}");
    }
}
