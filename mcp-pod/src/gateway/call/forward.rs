//! An admitted call on its way through the shim and back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use mcp_fleet_policy::reason::Reason;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, Span};

use super::answer::progress_notification;
use super::finish::{Failed, finish};
use super::settle::Settlement;
use crate::envelope::MAX_PROGRESS_BYTES;
use crate::gateway::request::Id;
use crate::gateway::respond::{Body, event, event_stream, message};
use crate::gateway::state::Cancellable;
use crate::gateway::upstream::{Event, Exchange, Upstream, UpstreamError};

/// How much longer than the shim the gateway waits. The shim's own timeout keeps the connection usable.
const SHIM_GRACE: Duration = Duration::from_millis(250);
/// Events that wait for a client to read them.
const EVENT_QUEUE: usize = 16;

/// A call that is ready to be sent.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) upstream: Arc<Upstream>,
    /// The two lines for the shim.
    pub(super) envelope: Bytes,
    pub(super) id: Id,
    /// Token under which the caller wants progress.
    pub(super) progress_token: Option<Id>,
    /// Resolves on `notifications/cancelled`; legacy only.
    pub(super) cancellable: Option<Cancellable>,
    pub(super) settlement: Settlement,
    pub(super) span: Span,
}

/// A call whose answer has begun. Dropping it cancels the call.
struct Running {
    /// Absent after the end.
    exchange: Option<Exchange>,
    limits: Limits,
    id: Id,
    progress_token: Option<Id>,
    /// Bytes of progress that may still come.
    progress_left: usize,
    /// Absent after the end.
    settlement: Option<Settlement>,
}

/// What ends a call before the shim does.
struct Limits {
    deadline: Pin<Box<Sleep>>,
    cancellable: Option<Cancellable>,
}

/// The next message for the caller.
enum Next {
    Progress(Vec<u8>),
    /// The message that ends the call.
    End(Vec<u8>),
}

impl Forward {
    /// Sends the call and answers: as JSON, or as an event stream if progress comes before the result.
    pub(super) async fn run(self) -> Response<Body> {
        let Self { upstream, envelope, id, progress_token, cancellable, settlement, span } = self;
        let timeout = settlement.grant.timeout.saturating_add(SHIM_GRACE);
        let mut limits = Limits { deadline: Box::pin(tokio::time::sleep(timeout)), cancellable };
        let started = limits.apply(upstream.call(envelope, settlement.grant.max_response)).await;
        let exchange = match started {
            Ok(exchange) => exchange,
            Err(failed) => return message(finish(settlement, &id, Err(failed))),
        };
        let mut running = Running {
            exchange: Some(exchange),
            limits,
            id,
            progress_token,
            progress_left: MAX_PROGRESS_BYTES,
            settlement: Some(settlement),
        };
        match running.next().await {
            Next::End(answer) => message(answer),
            Next::Progress(first) => event_stream(stream(running, &first, span)),
        }
    }
}

/// Continues a call whose answer is an event stream, in a task of its own: a client that stops reading its events must
/// neither hold the call's resources nor outlast its deadline.
fn stream(mut running: Running, first: &[u8], span: Span) -> ReceiverStream<Bytes> {
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let legacy = running.settlement.as_ref().is_some_and(|settlement| settlement.revision.is_legacy());
    let counter = running.settlement.as_ref().map(|call| (Arc::clone(&call.state), Arc::clone(&call.grant)));
    let count_unread = move |bytes| match &counter {
        Some((state, grant)) => state.count_unread(&grant.subject.principal_uid, bytes),
        None => bytes,
    };
    // The queue has room for the first event.
    let _ = sender.try_send(count_unread(event(first)));
    let forward_events = async move {
        loop {
            let next = tokio::select! {
                biased;
                // From 2026-07-28 on, closing the connection cancels the call; before, it does not.
                () = sender.closed(), if !legacy => return,
                next = running.next() => next,
            };
            match next {
                // A slow client misses progress, but never the end.
                Next::Progress(next) => drop(sender.try_send(count_unread(event(&next)))),
                Next::End(answer) => {
                    // The call is settled; the client may read the last events slowly, or be gone.
                    drop(sender.send(count_unread(event(&answer))).await);
                    return;
                }
            }
        }
    };
    tokio::spawn(forward_events.instrument(span));
    ReceiverStream::new(events)
}

impl Running {
    /// Returns the next progress that was asked for, or the end. Must not be called after the end.
    async fn next(&mut self) -> Next {
        loop {
            match self.step().await {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(failed) => {
                    self.exchange = None;
                    return self.finish(Err(failed));
                }
            }
        }
    }

    /// Reads one line of the shim's answer. Returns `None` if the caller gets nothing of it.
    async fn step(&mut self) -> Result<Option<Next>, Failed> {
        let Some(exchange) = &mut self.exchange else { return Err(UpstreamError::Malformed("no exchange").into()) };
        let line = self.limits.apply(exchange.next_line()).await?;
        let event = Event::parse(&line)?;
        if let Event::Progress(params) = event {
            let Some(token) = &self.progress_token else { return Ok(None) };
            self.progress_left = self.progress_left.checked_sub(line.len()).ok_or(UpstreamError::TooLarge)?;
            return Ok(progress_notification(&params, token).map(Next::Progress));
        }
        let end = self.finish(Ok(event));
        if let Some(exchange) = self.exchange.take() {
            exchange.finish();
        }
        Ok(Some(end))
    }

    fn finish(&mut self, ended: Result<Event, Failed>) -> Next {
        let answer = self.settlement.take().map(|settlement| finish(settlement, &self.id, ended));
        Next::End(answer.unwrap_or_default())
    }
}

impl Limits {
    /// Waits for `work`, until the call is cancelled or its time is over.
    async fn apply<T>(&mut self, work: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, Failed> {
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
