//! A call at its server, from its hand-over to its end.
//!
//! A call that ends before its server has answered (it was cancelled, its client has gone, its answer is unusable) is
//! settled and answered at once. Its server may still work on it, so the call keeps its place among the calls in flight
//! until the shim has sent the last event or closed the connection, at most until the call's timeout. Otherwise a client
//! could have any amount of work done by calling and cancelling again and again.

use std::future::Future;
use std::pin::Pin;

use mcp_fleet_policy::governor::Permit;
use mcp_fleet_policy::reason::Reason;
use tokio::runtime::Handle;
use tokio::time::Sleep;
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

/// What ends a call before the shim does.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) deadline: Pin<Box<Sleep>>,
    /// Resolves on `notifications/cancelled`; legacy only.
    pub(super) cancellable: Option<Cancellable>,
}

/// A call at its server, on behalf of a client. Dropping it before its end shows that the client has gone, which cancels
/// the call from 2026-07-28 on. Up to 2025-11-25 it does not, so the call moves to a task of its own and ends there.
#[derive(Debug)]
pub(super) struct Attended(Option<Running>);

/// The next message for the caller.
#[derive(Debug)]
pub(super) enum Next {
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
            let run = async move { while let Next::Progress(_) = next(&mut running).await {} };
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
            Ok(Event::Progress(params)) => {
                let token = call.progress_token.as_ref();
                if let Some(progress) = token.and_then(|token| progress_notification(&params, token)) {
                    return Next::Progress(progress);
                }
            }
            Ok(event) => return Next::End(running.take().map(|call| call.end(event)).unwrap_or_default()),
            Err(failed) => return Next::End(running.take().map(|call| call.fail(failed)).unwrap_or_default()),
        }
    }
}

impl Running {
    /// Reads one event of the shim's answer.
    async fn event(&mut self) -> Result<Event, Failed> {
        let line = self.limits.apply(self.exchange.next_line()).await?;
        let event = Event::parse(&line)?;
        if let (Event::Progress(_), Some(_)) = (&event, &self.progress_token) {
            self.progress_left = self.progress_left.checked_sub(line.len()).ok_or(UpstreamError::TooLarge)?;
        }
        Ok(event)
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
            wind_down(exchange, settlement.call, permit, limits.deadline);
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
    /// Waits for `work`, until the call is cancelled or its time is over.
    pub(super) async fn apply<T>(&mut self, work: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, Failed> {
        let cancelled = async {
            match &mut self.cancellable {
                Some(cancellable) => cancellable.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => done.map_err(Failed::from),
            () = cancelled => Err(Failed::charged(Reason::Cancelled)),
            () = self.deadline.as_mut() => Err(Failed::charged(Reason::UpstreamTimeout)),
        }
    }
}
