//! The queue of lines to the server.

use super::RpcClient;
use super::pending::PendingRequests;
use super::request::QueueError;
use crate::shim::metrics::Dropped;

/// Lines that may wait for the server to read them. Their bytes are limited as well.
pub(super) const MAX_QUEUED_LINES: usize = 4096;

/// A line for the server, with its newline.
#[derive(Debug)]
pub(in crate::shim::server) struct Outgoing {
    pub(in crate::shim::server) line: Vec<u8>,
    pub(in crate::shim::server) sent: Sent,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shim::server) enum Sent {
    /// The request with this id.
    Request(u64),
    /// The cancellation of the request with this id.
    Cancellation(u64),
    /// A request for notifications when the tools change, which is answered when there will be no more. Empty if the server
    /// sends them without it; one that serves HTTP needs a connection for them in any case.
    Listen,
    /// Another notification, or a response to a request of the server.
    Other,
}

impl RpcClient {
    pub(super) fn enqueue(&self, pending: &mut PendingRequests, outgoing: Outgoing) -> Result<(), QueueError> {
        let bytes = outgoing.line.len();
        if !pending.has_room_for(bytes) {
            return Err(QueueError::Full);
        }
        self.queue.try_send(outgoing).map_err(|_| QueueError::Full)?;
        pending.line_queued(bytes);
        Ok(())
    }

    /// Queues a notification, or a response to a request of the server. If the queue is full, it is dropped.
    pub(in crate::shim::server) fn notify(&self, line: Vec<u8>) {
        self.send(line, Sent::Other);
    }

    /// Queues a line whose answer nobody waits for. If the queue is full, the line is dropped.
    pub(in crate::shim::server) fn send(&self, line: Vec<u8>, sent: Sent) {
        if self.enqueue(&mut self.pending.lock(), Outgoing { line, sent }).is_err() {
            self.metrics.dropped(Dropped::Reply);
        }
    }

    /// Counts a line that the server will not get.
    pub(in crate::shim::server) fn reply_dropped(&self) {
        self.metrics.dropped(Dropped::Reply);
    }

    /// Takes a line off the queue and returns whether to write it. A request that was cancelled in the meantime is not
    /// written; any other counts as forwarded from now on.
    pub(in crate::shim::server) fn start_writing(&self, outgoing: &Outgoing) -> bool {
        let mut pending = self.pending.lock();
        pending.line_dequeued(outgoing.line.len());
        match outgoing.sent {
            Sent::Request(id) => pending.mark_forwarded(id),
            _ => true,
        }
    }
}
