//! An admitted call on its way through the shim and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, Span};

use super::finish::{deny_unaudited, finish};
use super::running::{Attended, Limits, Next, Running};
use super::settle::Settlement;
use crate::envelope::MAX_PROGRESS_BYTES;
use crate::gateway::audit::PendingLine;
use crate::gateway::memory;
use crate::gateway::request::Id;
use crate::gateway::respond::{Body, event, event_stream, message};
use crate::gateway::state::{Admission, Cancellable};

/// How much longer than the shim the gateway waits. The shim's own timeout keeps the connection usable.
const SHIM_GRACE: Duration = Duration::from_millis(250);
/// Events that wait for a client to read them.
const EVENT_QUEUE: usize = 16;

/// A call that is ready to be sent.
#[derive(Debug)]
pub(super) struct Forward {
    /// The two lines for the shim.
    pub(super) envelope: Bytes,
    pub(super) id: Id,
    /// Token under which the caller wants progress.
    pub(super) progress_token: Option<Id>,
    /// Resolves on `notifications/cancelled`; legacy only.
    pub(super) cancellable: Option<Cancellable>,
    /// Audit line that must be written before the call is sent.
    pub(super) record: Option<PendingLine>,
    /// What has to hold when the call is handed to the shim.
    pub(super) admission: Admission,
    pub(super) settlement: Settlement,
    pub(super) span: Span,
}

/// A call that was not forwarded, because it has to be decided again.
#[derive(Debug)]
pub(super) struct Outdated(pub(super) Settlement);

impl Forward {
    /// Hands the call to the shim and answers: as JSON, or as an event stream if progress comes before the result.
    pub(super) async fn run(self) -> Result<Response<Body>, Outdated> {
        let Self { envelope, id, progress_token, cancellable, record, admission, mut settlement, span } = self;
        if let Some(record) = record
            && record.written().await.is_err()
        {
            return Ok(deny_unaudited(settlement, &id));
        }
        let timeout = settlement.grant.timeout.saturating_add(SHIM_GRACE);
        let mut limits = Limits { deadline: Box::pin(tokio::time::sleep(timeout)), cancellable };
        let state = &settlement.state;
        let hand_over = || state.hand_over(&admission).ok_or(());
        let upstream = &settlement.grant.upstream;
        let started = limits.apply(upstream.call(envelope, settlement.grant.max_response, hand_over)).await;
        let exchange = match started {
            Ok(Ok(exchange)) => exchange,
            Ok(Err(())) => return Err(Outdated(settlement)),
            // The pods may have changed meanwhile.
            Err(failed) if failed.is_unconnected() && hand_over().is_err() => return Err(Outdated(settlement)),
            Err(failed) => return Ok(message(finish(settlement, &id, Err(failed.before_hand_over())))),
        };
        settlement.handed_over = Some(Instant::now());
        let progress_left = MAX_PROGRESS_BYTES;
        let mut call = Attended::new(Running { exchange, limits, id, progress_token, progress_left, settlement, span });
        match call.next().await {
            Next::End(answer) => Ok(message(answer)),
            Next::Progress(first) => Ok(event_stream(stream(call, &first))),
        }
    }
}

/// Continues a call whose answer is an event stream, in a task of its own: a client that stops reading its events must
/// neither hold the call's resources nor outlast its deadline.
fn stream(mut call: Attended, first: &[u8]) -> ReceiverStream<Bytes> {
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let legacy = call.settlement().is_some_and(|settlement| settlement.revision.is_legacy());
    let account = call.settlement().map(|call| Arc::clone(&call.grant.account));
    let span = call.span();
    let count_unread = move |bytes| match &account {
        Some(account) => memory::count(account, bytes),
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
                next = call.next() => next,
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
