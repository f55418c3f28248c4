//! The body of a forwarded request's answer, as the home sends it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::peer::{Connection, Peer};
use super::upload::Chunks;
use crate::gateway::memory::Reservation;
use crate::gateway::metrics::ForwardOutcome;
use crate::gateway::state::{ActiveRequest, State};

/// The connection to the home ended before the answer did. The client must see that: its connection ends too.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the caller's home was lost")]
pub(crate) struct HomeLost;

/// Counts a forwarded request when it ends, and keeps the gateway from ending before.
#[derive(Debug)]
pub(super) struct Ticket {
    active: ActiveRequest,
    pub(super) outcome: ForwardOutcome,
}

impl Ticket {
    /// Returns the ticket of a request that counts as aborted until something else is known.
    pub(super) fn new(state: &Arc<State>) -> Self {
        Self { active: state.enter(), outcome: ForwardOutcome::Aborted }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.active.state().metrics.forwarded.count(self.outcome);
    }
}

/// What an answer needs until it ends.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: Connection,
    pub(super) peer: Arc<Peer>,
    /// Present if the home has not taken the whole body: the connection cannot be used again, and fails once this is dropped.
    pub(super) unfinished: Option<Chunks>,
    pub(super) memory: Reservation,
    pub(super) ticket: Ticket,
}

impl Held {
    /// Ends a request whose answer is complete.
    fn finish(self) {
        let Self { connection, peer, unfinished, memory, mut ticket } = self;
        ticket.outcome = ForwardOutcome::Answered;
        drop(memory);
        if unfinished.is_none() {
            peer.keep(connection);
        }
    }
}

/// The body of an answer. Dropping it before its end closes the connection to the home.
#[derive(Debug)]
pub(crate) struct ForwardedBody {
    incoming: Incoming,
    held: Option<Held>,
}

impl ForwardedBody {
    pub(super) fn new(incoming: Incoming, held: Held) -> Self {
        let mut body = Self { incoming, held: Some(held) };
        body.finish_if_complete();
        body
    }

    /// A body whose length is declared is not asked for its end.
    fn finish_if_complete(&mut self) {
        if self.incoming.is_end_stream() {
            self.held.take().into_iter().for_each(Held::finish);
        }
    }
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = HomeLost;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HomeLost>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_data() => {
                    self.finish_if_complete();
                    Some(Ok(frame))
                }
                // A gateway sends no trailers.
                Some(Ok(_)) => continue,
                Some(Err(_)) => {
                    if let Some(mut held) = self.held.take() {
                        held.ticket.outcome = ForwardOutcome::Lost;
                    }
                    Some(Err(HomeLost))
                }
                None => {
                    self.held.take().into_iter().for_each(Held::finish);
                    None
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
