//! The calls of a server, to stop one that nobody calls and to start it again for the next call.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The calls of a server, and since when there are none.
#[derive(Debug)]
pub(super) struct Activity {
    calls: Mutex<Calls>,
    /// Notifies the supervisor, which alone waits, of the first call and of the end of the last one.
    changed: Notify,
}

#[derive(Debug)]
struct Calls {
    /// Calls that need the server.
    number: usize,
    /// When the last call ended, or the server began to take calls.
    since: Instant,
}

/// A call that needs the server, until it is dropped.
#[derive(Debug)]
pub(in crate::shim) struct Needed(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let calls = Mutex::new(Calls { number: 0, since: Instant::now() });
        Arc::new(Self { calls, changed: Notify::new() })
    }

    /// Adds a call.
    pub(super) fn enter(self: &Arc<Self>) -> Needed {
        self.calls.lock().number += 1;
        self.changed.notify_one();
        Needed(Arc::clone(self))
    }

    /// Waits until no call has needed the server for `time`, beginning now, and then runs `stop`. No call begins before it
    /// returns, so each one finds either a server that goes on or what `stop` has changed.
    pub(super) async fn idle(&self, time: Duration, stop: impl FnOnce()) {
        self.calls.lock().since = Instant::now();
        loop {
            let until = {
                let calls = self.calls.lock();
                let until = calls.since + time;
                if calls.number == 0 && Instant::now() >= until {
                    stop();
                    return;
                }
                (calls.number == 0).then_some(until)
            };
            match until {
                Some(until) => sleep_until(until).await,
                None => self.changed.notified().await,
            }
        }
    }

    /// Waits until a call needs the server.
    pub(super) async fn called(&self) {
        while self.calls.lock().number == 0 {
            self.changed.notified().await;
        }
    }
}

impl Drop for Needed {
    fn drop(&mut self) {
        {
            let mut calls = self.0.calls.lock();
            calls.number -= 1;
            calls.since = Instant::now();
        }
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const TIME: Duration = Duration::from_mins(1);

    /// Returns how long it takes until there was no call for [`TIME`], or `None` within an hour.
    async fn idle_after(activity: &Activity) -> Option<Duration> {
        let start = Instant::now();
        let mut stopped = false;
        let waited = timeout(Duration::from_hours(1), activity.idle(TIME, || stopped = true)).await;
        assert_eq!(waited.is_ok(), stopped);
        waited.ok().map(|()| start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_begins_when_the_server_does_or_with_the_end_of_the_last_call() {
        let activity = Activity::new();
        advance(TIME * 3).await;
        assert_eq!(idle_after(&activity).await, Some(TIME));
        let (one, two) = (activity.enter(), activity.enter());
        assert_eq!(idle_after(&activity).await, None, "calls are in flight");
        drop(one);
        assert_eq!(idle_after(&activity).await, None, "a call is in flight");
        let later = async {
            advance(TIME * 5).await;
            drop(two);
        };
        assert_eq!(tokio::join!(idle_after(&activity), later).0, Some(TIME * 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_begins_while_a_long_one_is_in_flight_stops_nothing() {
        let activity = Activity::new();
        let long = activity.enter();
        let calls = async {
            tokio::time::sleep(TIME * 5).await;
            let short = activity.enter();
            tokio::time::sleep(TIME * 5).await;
            drop((short, long));
        };
        assert_eq!(tokio::join!(idle_after(&activity), calls).0, Some(TIME * 11));
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_call_starts_the_time_again() {
        let activity = Activity::new();
        let calls = async {
            for _ in 0..10 {
                tokio::time::sleep(TIME / 2).await;
                drop(activity.enter());
            }
        };
        assert_eq!(tokio::join!(idle_after(&activity), calls).0, Some(TIME * 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_noticed_whether_it_began_before_or_after() {
        let activity = Activity::new();
        assert!(timeout(TIME, activity.called()).await.is_err());
        drop(activity.enter());
        assert!(timeout(TIME, activity.called()).await.is_err(), "nobody waits any more");
        let call = activity.enter();
        activity.called().await;
        drop(call);
        let later = async {
            advance(TIME).await;
            activity.enter()
        };
        tokio::join!(activity.called(), later);
    }
}
