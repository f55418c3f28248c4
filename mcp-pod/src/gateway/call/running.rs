//! A call at its server, from its hand-over to its end.
//!
//! A call that ends before its server has answered (it was cancelled, its client has gone, its answer is unusable) is
//! settled and answered at once. Its server may still work on it, so the call keeps its place among the calls in flight
//! until the shim has sent the last event or closed the connection, at most until the call's timeout. Otherwise a client
//! could have any amount of work done by calling and cancelling again and again.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use mcp_fleet_policy::governor::Permit;
use mcp_fleet_policy::reason::Reason;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};
use tracing::{Instrument as _, Span};
use ulid::Ulid;

use super::answer::progress_notification;
use super::finish::{Failed, finish};
use super::settle::Settlement;
use crate::gateway::request::Id;
use crate::gateway::state::Cancellable;
use crate::gateway::upstream::{Event, Exchange, UpstreamError};

/// A call at its server.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) exchange: Exchange,
    pub(super) limits: Limits,
    pub(super) id: Id,
    /// Token under which the caller wants progress.
    pub(super) progress_token: Option<Id>,
    /// Bytes of progress that may still come.
    pub(super) progress_left: usize,
    pub(super) settlement: Settlement,
    pub(super) span: Span,
}

/// Silence after which a client that takes events gets the head of its answer. Clients and load balancers give up on a
/// connection without one, many of them after a minute.
const FIRST_BEAT: Duration = Duration::from_secs(5);
/// Time between two comments in an answer without an end.
const BEAT: Duration = Duration::from_secs(15);

/// What ends a call before the shim does, and what shows its client meanwhile that the call is still there.
#[derive(Debug)]
pub(super) struct Limits {
    /// The next beat, or the deadline. The call has no other timer, so an idle event stream costs none of its own.
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
    beats: Beats,
    /// Resolves on `notifications/cancelled`; legacy only.
    cancellable: Option<Cancellable>,
}

/// Signs of life for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beats {
    /// The client does not take events.
    Never,
    Waited,
    /// One was due while nobody could take it.
    Due,
}

/// A call at its server, on behalf of a client. Dropping it before its end shows that the client has gone, which cancels
/// the call from 2026-07-28 on. Up to 2025-11-25 it does not, so the call moves to a task of its own and ends there.
#[derive(Debug)]
pub(super) struct Attended(Option<Running>);

/// The next message for the caller.
#[derive(Debug)]
pub(super) enum Next {
    /// There is nothing new, and it is time to show that the call is still there.
    Beat,
    Progress(Vec<u8>),
    /// The message that ends the call.
    End(Vec<u8>),
}

impl Attended {
    pub(super) const fn new(running: Running) -> Self {
        Self(Some(running))
    }

    /// Returns the next progress that was asked for, or the end. Must not be called after the end.
    pub(super) async fn next(&mut self) -> Next {
        next(&mut self.0).await
    }

    /// Returns the span of the call.
    pub(super) fn span(&self) -> Span {
        self.0.as_ref().map_or_else(Span::none, |running| running.span.clone())
    }

    /// Returns the settlement to come, or `None` after the end.
    pub(super) fn settlement(&self) -> Option<&Settlement> {
        self.0.as_ref().map(|running| &running.settlement)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let Some(running) = self.0.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        if running.settlement.revision.is_legacy() {
            let span = running.span.clone();
            let mut running = Some(running);
            let run = async move { while !matches!(next(&mut running).await, Next::End(_)) {} };
            runtime.spawn(run.instrument(span));
        } else {
            running.fail(Failed::charged(Reason::Cancelled));
        }
    }
}

/// Returns the next message for the caller. `running` is `None` after the end.
async fn next(running: &mut Option<Running>) -> Next {
    loop {
        let Some(call) = running else { return Next::End(Vec::new()) };
        match call.event().await {
            Ok(None) => return Next::Beat,
            Ok(Some(Event::Progress(params))) => {
                let token = call.progress_token.as_ref();
                if let Some(progress) = token.and_then(|token| progress_notification(&params, token)) {
                    return Next::Progress(progress);
                }
            }
            Ok(Some(event)) => return Next::End(running.take().map(|call| call.end(event)).unwrap_or_default()),
            Err(failed) => return Next::End(running.take().map(|call| call.fail(failed)).unwrap_or_default()),
        }
    }
}

impl Running {
    /// Reads one event of the shim's answer; `None` if it is time for a beat.
    async fn event(&mut self) -> Result<Option<Event>, Failed> {
        let line = self.exchange.next_line(&self.settlement.grant.account);
        let Some(line) = self.limits.apply_until_beat(line).await? else { return Ok(None) };
        let event = Event::parse(&line)?;
        if let (Event::Progress(_), Some(_)) = (&event, &self.progress_token) {
            self.progress_left = self.progress_left.checked_sub(line.len()).ok_or(UpstreamError::TooLarge)?;
        }
        Ok(Some(event))
    }

    /// Settles the call with its last event, and returns the message that ends it.
    fn end(self, event: Event) -> Vec<u8> {
        let answer = finish(self.settlement, &self.id, Ok(event));
        self.exchange.finish();
        answer
    }

    /// Settles the call without an answer of the server, and returns the message that ends it.
    fn fail(self, failed: Failed) -> Vec<u8> {
        let Self { exchange, limits, id, mut settlement, .. } = self;
        if failed.server_may_work()
            && let Some(permit) = settlement.take_permit()
        {
            wind_down(exchange, settlement.call, permit, limits.until_deadline());
        }
        finish(settlement, &id, Err(failed))
    }
}

/// Cancels a call at its server, and keeps its place among the calls in flight until the server has ended it.
fn wind_down(exchange: Exchange, call: Ulid, permit: Permit, deadline: Pin<Box<Sleep>>) {
    let Ok(runtime) = Handle::try_current() else { return };
    runtime.spawn(async move {
        tokio::select! {
            () = exchange.cancel(call) => {}
            () = deadline => {}
        }
        drop(permit);
    });
}

impl Limits {
    /// Starts the time of a call. `events` says whether its client takes events.
    pub(super) fn new(timeout: Duration, events: bool, cancellable: Option<Cancellable>) -> Self {
        let now = Instant::now();
        let deadline = now + timeout;
        let (beats, first) =
            if events { (Beats::Waited, deadline.min(now + FIRST_BEAT)) } else { (Beats::Never, deadline) };
        Self { timer: Box::pin(tokio::time::sleep_until(first)), deadline, beats, cancellable }
    }

    /// Waits for `work`, until the call is cancelled or its time is over.
    pub(super) async fn apply<T>(&mut self, work: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, Failed> {
        let mut work = pin!(work);
        loop {
            match self.wait(work.as_mut()).await? {
                Some(done) => return Ok(done),
                None => self.beats = Beats::Due,
            }
        }
    }

    /// Waits for `work`, until the call is cancelled or its time is over. Returns `None` when it is time for a beat; `work`
    /// is then dropped.
    async fn apply_until_beat<T>(
        &mut self,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<Option<T>, Failed> {
        if self.beats == Beats::Due {
            self.beats = Beats::Waited;
            return Ok(None);
        }
        self.wait(pin!(work)).await
    }

    async fn wait<T>(
        &mut self,
        work: Pin<&mut impl Future<Output = Result<T, UpstreamError>>>,
    ) -> Result<Option<T>, Failed> {
        let cancelled = async {
            match &mut self.cancellable {
                Some(cancellable) => cancellable.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => return done.map(Some).map_err(Failed::from),
            () = cancelled => return Err(Failed::charged(Reason::Cancelled)),
            () = self.timer.as_mut() => {}
        }
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Failed::charged(Reason::UpstreamTimeout));
        }
        self.timer.as_mut().reset(self.deadline.min(now + BEAT));
        Ok(None)
    }

    /// Returns the timer, for the deadline alone.
    fn until_deadline(mut self) -> Pin<Box<Sleep>> {
        self.timer.as_mut().reset(self.deadline);
        self.timer
    }
}

#[cfg(test)]
mod tests {
    use futures::future::pending;

    use super::*;

    async fn beats(mut limits: Limits) -> Vec<u64> {
        let start = Instant::now();
        let mut beats = Vec::new();
        while let Ok(None) = limits.apply_until_beat(pending::<Result<(), UpstreamError>>()).await {
            beats.push(start.elapsed().as_secs());
        }
        beats.push(start.elapsed().as_secs());
        beats
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_call_gives_signs_of_life_until_its_deadline() {
        assert_eq!(beats(Limits::new(Duration::from_secs(60), true, None)).await, [5, 20, 35, 50, 60]);
        assert_eq!(beats(Limits::new(Duration::from_secs(60), false, None)).await, [60]);
        assert_eq!(beats(Limits::new(Duration::from_secs(3), true, None)).await, [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_that_was_due_during_the_connection_is_given_right_after_it() {
        let mut limits = Limits::new(Duration::from_secs(60), true, None);
        let connect = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            Ok(())
        };
        assert!(limits.apply(connect).await.is_ok());
        let start = Instant::now();
        assert!(matches!(limits.apply_until_beat(pending::<Result<(), UpstreamError>>()).await, Ok(None)));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(matches!(limits.apply_until_beat(pending::<Result<(), UpstreamError>>()).await, Ok(None)));
        assert_eq!(start.elapsed().as_secs(), 12);
    }
}
