//! An admitted call on its way through the shim and back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use mcp_fleet_policy::budget::Charge;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::reason::Reason;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::answer::{Answer, checked_error, checked_result, progress};
use super::settle::{Outcome, Settlement};
use crate::gateway::log_throttle::LogThrottle;
use crate::gateway::request::Id;
use crate::gateway::respond::{Body, EventStream, denied_call, event, message, result_message};
use crate::gateway::state::Cancellable;
use crate::gateway::upstream::{Event, Exchange, Upstream, UpstreamError};

/// How much longer than the shim the gateway waits: the shim's own refusal keeps the connection whole.
const GRACE: Duration = Duration::from_millis(250);
/// Bytes of progress that one call may send.
const PROGRESS: usize = 1 << 20;

/// Events that wait for a client to read them.
const EVENTS: usize = 16;

/// When the log last heard of a failed call.
static LOG_THROTTLE: LogThrottle = LogThrottle::new();

/// A call that may go.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) upstream: Arc<Upstream>,
    /// The two lines of the envelope.
    pub(crate) lines: Bytes,
    pub(crate) id: Id,
    /// What the caller wants progress under.
    pub(crate) progress: Option<Id>,
    /// Where `notifications/cancelled` reaches the call: legacy only.
    pub(crate) cancellable: Option<Cancellable>,
    pub(crate) settlement: Settlement,
}

/// What ends the waiting for the shim before the shim does.
struct Limits {
    deadline: Pin<Box<Sleep>>,
    cancellable: Option<Cancellable>,
}

/// A call whose answer has begun. Dropping it cancels.
struct Running {
    exchange: Option<Exchange>,
    limits: Limits,
    id: Id,
    progress: Option<Id>,
    left: usize,
    settlement: Option<Settlement>,
}

/// What came next.
enum Next {
    Progress(Vec<u8>),
    /// The whole message that ends the call.
    End(Vec<u8>),
}

/// Why a call did not get its answer.
struct Failed {
    reason: Reason,
    charge: Charge,
}

impl Forward {
    /// Forwards the call and answers: as JSON, or as events if progress comes before the result.
    pub(crate) async fn run(self) -> Response<Body> {
        let Self { upstream, lines, id, progress, cancellable, settlement } = self;
        let timeout = settlement.grant.timeout.saturating_add(GRACE);
        let mut limits = Limits { deadline: Box::pin(tokio::time::sleep(timeout)), cancellable };
        let started = limits.hold(upstream.call(lines, settlement.grant.max_response)).await;
        let exchange = match started {
            Ok(exchange) => exchange,
            Err(failed) => return message(end(settlement, &id, Err(failed))),
        };
        let settlement = Some(settlement);
        let mut running = Running { exchange: Some(exchange), limits, id, progress, left: PROGRESS, settlement };
        match running.next().await {
            Next::End(answer) => message(answer),
            Next::Progress(first) => EventStream::respond(stream_on(running, &first)),
        }
    }
}

/// Goes on with a call whose answer has become a stream, in a task of its own: a client that stops reading its events
/// must not keep the call's places, nor outlast its deadline.
fn stream_on(mut running: Running, first: &[u8]) -> ReceiverStream<Bytes> {
    let (sender, events) = mpsc::channel(EVENTS);
    let legacy = running.settlement.as_ref().is_some_and(|held| held.revision.is_legacy());
    let keeper = running.settlement.as_ref().map(|held| (Arc::clone(&held.state), Arc::clone(&held.grant)));
    let unread = move |bytes| match &keeper {
        Some((state, grant)) => state.unread(&grant.subject.principal_uid, bytes),
        None => bytes,
    };
    // There is room for the first.
    let _ = sender.try_send(unread(event(first)));
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                biased;
                // From 2026-07-28 on, hanging up cancels; before, it does not.
                () = sender.closed(), if !legacy => return,
                next = running.next() => next,
            };
            match next {
                // Whoever is slow misses progress, which is never the last word.
                Next::Progress(next) => drop(sender.try_send(unread(event(&next)))),
                Next::End(answer) => {
                    // The call is settled; the client may take its time with what is left, or be gone.
                    drop(sender.send(unread(event(&answer))).await);
                    return;
                }
            }
        }
    });
    ReceiverStream::new(events)
}

impl Running {
    /// The next progress that was asked for, or the end. Not asked again after the end.
    async fn next(&mut self) -> Next {
        loop {
            match self.step().await {
                Ok(Some(next)) => return next,
                Ok(None) => {}
                Err(failed) => {
                    self.exchange = None;
                    let settlement = self.settlement.take();
                    return Next::End(settlement.map(|held| end(held, &self.id, Err(failed))).unwrap_or_default());
                }
            }
        }
    }

    /// Reads one line; `None` if there is nothing in it for the caller.
    async fn step(&mut self) -> Result<Option<Next>, Failed> {
        let Some(exchange) = &mut self.exchange else { return Err(UpstreamError::Malformed("no exchange").into()) };
        let line = self.limits.hold(exchange.next_line()).await?;
        let event = Event::parse(&line)?;
        if let Event::Progress(params) = event {
            let Some(token) = &self.progress else { return Ok(None) };
            self.left = self.left.checked_sub(line.len()).ok_or(UpstreamError::TooLarge)?;
            return Ok(progress(&params, token).map(Next::Progress));
        }
        let answer = self.settlement.take().map(|held| end(held, &self.id, Ok(event))).unwrap_or_default();
        if let Some(exchange) = self.exchange.take() {
            exchange.finish();
        }
        Ok(Some(Next::End(answer)))
    }
}

/// Answers a call whose server has no address.
pub(crate) fn unreachable(settlement: Settlement, id: &Id) -> Response<Body> {
    let failed = Failed { reason: Reason::UpstreamUnavailable, charge: Charge::Nothing };
    message(end(settlement, id, Err(failed)))
}

/// Checks what the shim brought, settles the call, and makes the message of it that ends it.
fn end(settlement: Settlement, id: &Id, ended: Result<Event, Failed>) -> Vec<u8> {
    let modern = !settlement.revision.is_legacy();
    let limit = settlement.grant.max_response;
    let seen = |reason| Failed { reason, charge: Charge::Full };
    let checked = ended.and_then(|event| match event {
        Event::Result(text) => checked_result(id, text, limit, modern).map(Ok).map_err(seen),
        Event::Error(text) => checked_error(id, text, limit).map(Ok).map_err(seen),
        Event::Refused(refusal) => Ok(Err(refusal)),
        Event::Progress(_) => Err(seen(Reason::UpstreamInvalid)),
    });
    let (reason, outcome) = match checked {
        Ok(Ok(answer)) => {
            let Answer { message, text, tool_error } = answer;
            settlement.settle(Outcome::Answered { answer: text, tool_error });
            return message;
        }
        Ok(Err(refusal)) => {
            let reason = Reason::from_name(&refusal.reason).unwrap_or(Reason::UpstreamInvalid);
            info!(call = %settlement.call, reason = reason.as_str(), detail = refusal.detail, "the shim refused a call");
            let outcome = match (refusal.forwarded, reason) {
                (false, Reason::PathOutsideRoots) => Outcome::Refused(reason),
                (false, _) => Outcome::Failed(reason, Charge::Nothing),
                (true, _) => Outcome::Failed(reason, Charge::Full),
            };
            (reason, outcome)
        }
        Err(Failed { reason, charge }) => (reason, Outcome::Failed(reason, charge)),
    };
    settlement.settle(outcome);
    result_message(id, &[&denied_call(&Denial::new(reason), modern)])
}

impl Limits {
    /// Waits for `work`, but no longer than the call may take.
    async fn hold<T>(&mut self, work: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, Failed> {
        let cancelled = async {
            match &mut self.cancellable {
                Some(cancellable) => cancellable.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => done.map_err(Failed::from),
            () = cancelled => Err(Failed { reason: Reason::Cancelled, charge: Charge::Full }),
            () = self.deadline.as_mut() => Err(Failed { reason: Reason::UpstreamTimeout, charge: Charge::Full }),
        }
    }
}

impl From<UpstreamError> for Failed {
    fn from(error: UpstreamError) -> Self {
        let (reason, charge) = match &error {
            // The shim answers with another status than 200 only before it has given the call to its server.
            UpstreamError::Connect(_) | UpstreamError::Paused | UpstreamError::Status(_) => {
                (Reason::UpstreamUnavailable, Charge::Nothing)
            }
            UpstreamError::Broken(_) => (Reason::UpstreamUnavailable, Charge::Full),
            UpstreamError::Malformed(_) => (Reason::UpstreamInvalid, Charge::Full),
            UpstreamError::TooLarge => (Reason::ResponseTooLarge, Charge::Full),
        };
        if LOG_THROTTLE.allows() {
            let error: &dyn std::error::Error = &error;
            warn!(error, "failed to have a call done");
        }
        Self { reason, charge }
    }
}
