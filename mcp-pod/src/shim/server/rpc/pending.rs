//! The requests in flight and the bytes queued for the server.

use std::collections::HashMap;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::request::{QueueError, RequestOutcome};

const MAX_IN_FLIGHT: usize = 4096;
/// Limit on the bytes of all queued lines: room for at least one call of the largest size.
pub(in crate::shim::server) const MAX_QUEUED_BYTES: usize = 24 << 20;

/// A request in flight.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) outcome: oneshot::Sender<RequestOutcome>,
    pub(super) progress: Option<mpsc::Sender<Bytes>>,
    /// Largest result or error that the requester accepts, in bytes.
    pub(super) max_response: usize,
    /// Whether the server may have seen the request.
    pub(super) forwarded: bool,
    /// Whether the server was told that nobody wants its answer any more.
    pub(super) cancelled: bool,
    /// Ends what waits for the end of the request.
    pub(super) watched: Option<DropGuard>,
}

/// The requests in flight of one run, by id.
#[derive(Debug)]
pub(super) struct PendingRequests {
    last_id: u64,
    requests: HashMap<u64, PendingRequest>,
    queued_bytes: usize,
    /// The largest `max_response` of the requests in flight.
    max_response: usize,
    closed: bool,
    in_flight: IntGauge,
}

impl PendingRequests {
    pub(super) fn new(in_flight: IntGauge) -> Self {
        Self { last_id: 0, requests: HashMap::new(), queued_bytes: 0, max_response: 0, closed: false, in_flight }
    }

    /// Returns the id for the next request.
    pub(super) fn next_id(&self) -> Result<u64, QueueError> {
        if self.closed {
            return Err(QueueError::ServerEnded);
        }
        if self.requests.len() >= MAX_IN_FLIGHT {
            return Err(QueueError::Full);
        }
        Ok(self.last_id + 1)
    }

    pub(super) fn insert(&mut self, id: u64, request: PendingRequest) {
        self.last_id = id;
        self.max_response = self.max_response.max(request.max_response);
        self.requests.insert(id, request);
        self.in_flight.inc();
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<PendingRequest> {
        let request = self.requests.remove(&id)?;
        self.in_flight.dec();
        if request.max_response == self.max_response {
            self.max_response = self.requests.values().map(|request| request.max_response).max().unwrap_or(0);
        }
        Some(request)
    }

    pub(super) fn get(&self, id: u64) -> Option<&PendingRequest> {
        self.requests.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Returns the largest response that any request in flight accepts, in bytes.
    pub(super) fn max_response(&self) -> usize {
        self.max_response
    }

    /// Returns whether a line of `bytes` bytes may be queued.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.queued_bytes + bytes <= MAX_QUEUED_BYTES
    }

    /// Counts a line as queued.
    pub(super) fn line_queued(&mut self, bytes: usize) {
        self.queued_bytes += bytes;
    }

    /// Counts a line as no longer queued.
    pub(super) fn line_dequeued(&mut self, bytes: usize) {
        self.queued_bytes -= bytes;
    }

    /// Marks a request as forwarded. Returns `false` if it is no longer in flight.
    pub(super) fn mark_forwarded(&mut self, id: u64) -> bool {
        self.requests.get_mut(&id).map(|request| request.forwarded = true).is_some()
    }

    /// Marks a request as cancelled.
    pub(super) fn mark_cancelled(&mut self, id: u64) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.cancelled = true;
        }
    }

    /// Returns a token that is cancelled when the request is no longer in flight. One at a time can watch a request.
    pub(super) fn watch(&mut self, id: u64) -> CancellationToken {
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        match self.requests.get_mut(&id) {
            Some(request) => request.watched = Some(guard),
            None => drop(guard),
        }
        token
    }

    /// Returns whether any request in flight is marked as forwarded.
    pub(super) fn has_forwarded(&self) -> bool {
        self.requests.values().any(|request| request.forwarded)
    }

    /// Ends all requests in flight.
    pub(super) fn fail_all(&mut self, outcome: impl Fn() -> RequestOutcome) {
        for (_, request) in self.requests.drain() {
            self.in_flight.dec();
            // This fails if the requester has dropped the receiver.
            let _ = request.outcome.send(outcome());
        }
        self.max_response = 0;
    }

    /// Ends all requests in flight and fails new ones.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for (_, request) in self.requests.drain() {
            self.in_flight.dec();
            // This fails if the requester has dropped the receiver.
            let _ = request.outcome.send(RequestOutcome::ServerEnded { forwarded: request.forwarded });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn pending() -> PendingRequests {
        PendingRequests::new(IntGauge::new("in_flight", "Requests in flight.").unwrap())
    }

    fn add(pending: &mut PendingRequests, max_response: usize) -> (u64, oneshot::Receiver<RequestOutcome>) {
        let id = pending.next_id().unwrap();
        let (outcome, receiver) = oneshot::channel();
        pending.insert(
            id,
            PendingRequest { outcome, progress: None, max_response, forwarded: false, cancelled: false, watched: None },
        );
        (id, receiver)
    }

    #[test]
    fn the_largest_response_follows_the_requests_in_flight() {
        let mut pending = pending();
        let (small, _small) = add(&mut pending, 10);
        let (large, _large) = add(&mut pending, 100);
        assert_eq!((pending.max_response(), pending.in_flight.get()), (100, 2));
        pending.remove(large).unwrap();
        assert_eq!((pending.max_response(), pending.in_flight.get()), (10, 1));
        pending.remove(small).unwrap();
        assert_eq!((pending.max_response(), pending.in_flight.get()), (0, 0));
        assert!(pending.remove(small).is_none());
    }

    #[test]
    fn whoever_watches_a_request_notices_its_end() {
        let mut pending = pending();
        let (first, _outcome) = add(&mut pending, 1);
        let (second, _other_outcome) = add(&mut pending, 1);
        let (first_over, second_over) = (pending.watch(first), pending.watch(second));
        drop(pending.remove(first));
        assert!(first_over.is_cancelled() && !second_over.is_cancelled());
        assert!(pending.watch(first).is_cancelled(), "it had ended before");
        pending.close();
        assert!(second_over.is_cancelled());
    }

    #[test]
    fn the_number_of_requests_in_flight_is_bounded() {
        let mut pending = pending();
        let _receivers: Vec<_> = (0..MAX_IN_FLIGHT).map(|_| add(&mut pending, 1)).collect();
        assert_eq!(pending.next_id(), Err(QueueError::Full));
        pending.remove(1).unwrap();
        assert_eq!(pending.next_id(), Ok(MAX_IN_FLIGHT as u64 + 1));
    }

    #[test]
    fn closing_ends_every_request_with_whether_it_was_forwarded() {
        let mut pending = pending();
        let (seen, mut seen_outcome) = add(&mut pending, 1);
        let (_, mut unseen_outcome) = add(&mut pending, 1);
        assert!(pending.mark_forwarded(seen));
        pending.close();
        assert!(matches!(seen_outcome.try_recv(), Ok(RequestOutcome::ServerEnded { forwarded: true })));
        assert!(matches!(unseen_outcome.try_recv(), Ok(RequestOutcome::ServerEnded { forwarded: false })));
        assert_eq!(pending.next_id(), Err(QueueError::ServerEnded));
        assert!(!pending.mark_forwarded(seen));
        assert_eq!(pending.in_flight.get(), 0);
    }
}
