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
use crate::gateway::memory::{self, Account};
use crate::gateway::request::{Id, Revision};
use crate::gateway::respond::{Body, COMMENT, event, event_stream, message};
use crate::gateway::state::{Admission, Cancellable, KeptStream, LegacySession};

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
    /// Whether the caller takes an event stream as an answer.
    pub(super) events: bool,
    /// The legacy session in which the caller can resume the stream.
    pub(super) session: Option<LegacySession>,
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
    /// Hands the call to the shim and answers: as JSON, or as an event stream if progress or some time comes before the
    /// result.
    pub(super) async fn run(self) -> Result<Response<Body>, Outdated> {
        let Self {
            envelope,
            id,
            events,
            session,
            progress_token,
            cancellable,
            record,
            admission,
            mut settlement,
            span,
        } = self;
        if let Some(record) = record
            && record.written().await.is_err()
        {
            return Ok(deny_unaudited(settlement, &id));
        }
        let timeout = settlement.grant.timeout.saturating_add(SHIM_GRACE);
        let mut limits = Limits::new(timeout, events, cancellable);
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
            first => Ok(event_stream(stream(call, session, first))),
        }
    }
}

/// Continues a call whose answer is an event stream, in a task of its own: a client that stops reading its events must
/// neither hold the call's resources nor outlast its deadline.
fn stream(mut call: Attended, session: Option<LegacySession>, first: Next) -> ReceiverStream<Bytes> {
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let legacy = call.settlement().is_some_and(|settlement| settlement.revision.is_legacy());
    let span = call.span();
    let mut writer = Writer::new(&call, session);
    // The queue has room for the first events.
    writer.start().into_iter().for_each(|event| drop(sender.try_send(event)));
    let mut next = Some(first);
    let forward_events = async move {
        loop {
            let message = if let Some(first) = next.take() {
                first
            } else {
                tokio::select! {
                    biased;
                    // From 2026-07-28 on, closing the connection cancels the call; before, it does not.
                    () = sender.closed(), if !legacy => return,
                    next = call.next() => next,
                }
            };
            match message {
                // A client that does not read misses signs of life and progress, but never the end.
                Next::Beat => drop(sender.try_send(writer.beat())),
                Next::Progress(progress) => drop(sender.try_send(writer.event(&progress))),
                Next::End(answer) => {
                    let last = writer.event(&answer);
                    writer.end();
                    // The call is settled; the client may read the last events slowly, or be gone.
                    drop(sender.send(last).await);
                    return;
                }
            }
        }
    };
    tokio::spawn(forward_events.instrument(span));
    ReceiverStream::new(events)
}

/// Writes the events of one stream.
struct Writer {
    account: Option<Arc<Account>>,
    /// Present if the client can resume the stream.
    kept: Option<Arc<KeptStream>>,
}

impl Writer {
    /// Only revision 2025-11-25 has streams that can be resumed in the form that this gateway offers: its clients know
    /// events without data, and later ones have no sessions.
    fn new(call: &Attended, session: Option<LegacySession>) -> Self {
        let Some(settlement) = call.settlement() else { return Self { account: None, kept: None } };
        let account = &settlement.grant.account;
        let session = session.filter(|_| settlement.revision == Revision::V2025_11_25);
        let kept = session.and_then(|session| settlement.state.resumable.open(settlement.call, session, account));
        Self { account: Some(Arc::clone(account)), kept }
    }

    /// Returns an event without data, whose id lets the client resume a stream that has had no message yet.
    fn start(&mut self) -> Option<Bytes> {
        Some(self.kept.as_ref()?.add(b"data: \n\n"))
    }

    fn event(&mut self, message: &[u8]) -> Bytes {
        let frame = event(message);
        let frame = self.kept.as_ref().map_or_else(|| frame.clone(), |kept| kept.add(&frame));
        self.account.as_ref().map_or_else(|| frame.clone(), |account| memory::count(account, frame.clone()))
    }

    fn beat(&mut self) -> Bytes {
        if let Some(kept) = &self.kept {
            kept.beat();
        }
        COMMENT
    }

    fn end(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.end();
        }
    }
}

impl Drop for Writer {
    /// Ends the stream also if its call is abandoned, so that it is not kept forever.
    fn drop(&mut self) {
        self.end();
    }
}
