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
    /// Id of the request on the line; `None` for notifications and for responses to the server's own requests.
    pub(super) request: Option<u64>,
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

    /// Queues a line that is not a request. If the queue is full, the line is dropped.
    pub(in crate::shim::server) fn notify(&self, line: Vec<u8>) {
        if self.enqueue(&mut self.pending.lock(), Outgoing { line, request: None }).is_err() {
            self.metrics.dropped(Dropped::Reply);
        }
    }

    /// Takes a line off the queue and returns whether to write it. A request that was cancelled in the meantime is not
    /// written; any other counts as forwarded from now on.
    pub(in crate::shim::server) fn start_writing(&self, outgoing: &Outgoing) -> bool {
        let mut pending = self.pending.lock();
        pending.line_dequeued(outgoing.line.len());
        outgoing.request.is_none_or(|id| pending.mark_forwarded(id))
    }
}
