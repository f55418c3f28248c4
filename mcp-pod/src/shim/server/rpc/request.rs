//! Requests to the server and their outcomes.

use std::sync::Arc;

use bytes::Bytes;
use mcp_fleet_policy::reason::Reason;
use tokio::sync::{mpsc, oneshot};

use super::RpcClient;
use super::outgoing::{Outgoing, Sent};
use super::pending::PendingRequest;

/// Progress notifications that may wait for the requester to read them.
const PROGRESS_QUEUE: usize = 16;

/// A request to send.
#[derive(Debug)]
pub(in crate::shim) struct Request<'a> {
    /// A constant of ours: it is written into the line without escaping.
    pub(in crate::shim) method: &'static str,
    pub(in crate::shim) params: Params<'a>,
    /// Largest result or error to accept, in bytes.
    pub(in crate::shim) max_response: usize,
}

/// The params of a request: one line of JSON.
#[derive(Debug)]
pub(in crate::shim) enum Params<'a> {
    Plain(&'a [u8]),
    /// Asks for progress. The params are split where the progress token has to be inserted.
    WithToken(&'a [u8], &'a [u8]),
}

/// How a request ended.
#[derive(Debug)]
pub(in crate::shim) enum RequestOutcome {
    /// The server's `result`, as it wrote it.
    Result(Bytes),
    /// The server's `error`, as it wrote it.
    Error(Bytes),
    /// The response was larger than [`Request::max_response`].
    TooLarge,
    /// The response had neither a result nor an error, or both.
    Invalid,
    /// The response is not valid JSON-RPC.
    NotJson,
    /// The response has another id, which this is. Only while the server starts.
    OtherId(String),
    /// The request was cancelled, and there will be no response.
    Cancelled,
    /// There is no response.
    Failed {
        reason: Reason,
        /// Why, for people.
        detail: String,
        /// Whether the server may have seen the request.
        forwarded: bool,
    },
    /// The server ended before it responded.
    ServerEnded {
        /// Whether the server may have seen the request.
        forwarded: bool,
    },
}

/// Why a request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shim) enum QueueError {
    ServerEnded,
    /// Too much is queued or in flight already.
    Full,
}

/// A request in flight. Dropping it before the outcome is there cancels the request; a late response is ignored.
#[derive(Debug)]
pub(in crate::shim) struct RequestHandle {
    id: u64,
    client: Arc<RpcClient>,
    /// Receives the outcome, exactly once.
    pub(in crate::shim) outcome: oneshot::Receiver<RequestOutcome>,
    /// Progress params without the token; `Some` if the request asked for progress.
    pub(in crate::shim) progress: Option<mpsc::Receiver<Bytes>>,
    /// Reason sent to the server if the request is cancelled. It is written into the line without escaping.
    pub(in crate::shim) cancel_reason: &'static str,
    /// Whether the server was notified of the cancellation.
    cancelled: bool,
}

impl RpcClient {
    /// Queues a request.
    pub(in crate::shim) fn request(self: &Arc<Self>, request: &Request<'_>) -> Result<RequestHandle, QueueError> {
        let mut pending = self.pending.lock();
        let id = pending.next_id()?;
        self.enqueue(&mut pending, Outgoing { line: request.line(id), sent: Sent::Request(id) })?;
        let (outcome, receiver) = oneshot::channel();
        let (progress, updates) = match request.params {
            Params::Plain(_) => (None, None),
            Params::WithToken(..) => {
                let (sender, updates) = mpsc::channel(PROGRESS_QUEUE);
                (Some(sender), Some(updates))
            }
        };
        pending.insert(
            id,
            PendingRequest {
                outcome,
                progress,
                max_response: request.max_response,
                forwarded: false,
                cancelled: false,
                watched: None,
            },
        );
        drop(pending);
        let cancel_reason = "the caller went away";
        let client = Arc::clone(self);
        Ok(RequestHandle { id, client, outcome: receiver, progress: updates, cancel_reason, cancelled: false })
    }
}

impl RequestHandle {
    /// Returns whether the server may have seen the request.
    pub(in crate::shim) fn forwarded(&self) -> bool {
        self.client.pending.lock().get(self.id).is_none_or(|request| request.forwarded)
    }

    /// Returns whether the request was cancelled.
    pub(in crate::shim) const fn cancelled(&self) -> bool {
        self.cancelled
    }

    /// Cancels the request. Returns false if the server will never see it. Otherwise the request stays in flight until
    /// the server responds.
    pub(in crate::shim) fn cancel(&mut self) -> bool {
        let mut pending = self.client.pending.lock();
        match pending.get(self.id) {
            Some(request) if !request.forwarded => {
                pending.remove(self.id);
                false
            }
            Some(_) => {
                pending.mark_cancelled(self.id);
                drop(pending);
                self.notify_cancelled();
                true
            }
            // The response has arrived.
            None => {
                self.cancelled = true;
                true
            }
        }
    }

    /// Notifies the server of the cancellation, once.
    fn notify_cancelled(&mut self) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        let (id, reason) = (self.id, self.cancel_reason);
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
             \"params\":{{\"requestId\":{id},\"reason\":\"{reason}\"}}}}\n"
        );
        self.client.send(line.into_bytes(), Sent::Cancellation(id));
    }
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        let removed = self.client.pending.lock().remove(self.id);
        if removed.is_some_and(|request| request.forwarded) {
            self.notify_cancelled();
        }
    }
}

impl Request<'_> {
    fn line(&self, id: u64) -> Vec<u8> {
        let start = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{}\",\"params\":", self.method);
        let mut line = start.into_bytes();
        match self.params {
            Params::Plain(params) => line.extend_from_slice(params),
            Params::WithToken(before, after) => {
                line.extend_from_slice(before);
                line.extend_from_slice(id.to_string().as_bytes());
                line.extend_from_slice(after);
            }
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::shim::metrics::Metrics;

    const REQUEST: Request<'_> = Request { method: "tools/call", params: Params::Plain(b"{}"), max_response: 100 };

    fn client() -> (Arc<RpcClient>, mpsc::Receiver<Outgoing>) {
        RpcClient::new(Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn the_id_is_the_progress_token() {
        let line = |params| String::from_utf8(Request { params, ..REQUEST }.line(7)).unwrap();
        assert_eq!(
            line(Params::Plain(b"{\"a\":1}")),
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"a\":1}}\n"
        );
        assert_eq!(
            line(Params::WithToken(b"{\"token\":", b"}")),
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"token\":7}}\n"
        );
    }

    #[test]
    fn dropping_a_forwarded_request_cancels_it() {
        let (client, mut lines) = client();
        let mut handle = client.request(&REQUEST).unwrap();
        assert!(client.start_writing(&lines.try_recv().unwrap()));
        assert!(handle.forwarded());
        handle.cancel_reason = "timed out";
        drop(handle);
        let cancelled: serde_json::Value = serde_json::from_slice(&lines.try_recv().unwrap().line).unwrap();
        assert_eq!(cancelled["method"], "notifications/cancelled");
        assert_eq!(cancelled["params"], serde_json::json!({"requestId": 1, "reason": "timed out"}));
        assert_eq!(client.in_flight(), 0);
    }

    #[test]
    fn a_cancelled_request_is_in_flight_until_the_server_responds() {
        let (client, mut lines) = client();
        let mut handle = client.request(&REQUEST).unwrap();
        assert!(client.start_writing(&lines.try_recv().unwrap()));
        assert!(handle.cancel() && handle.cancelled());
        assert!(String::from_utf8(lines.try_recv().unwrap().line).unwrap().contains("notifications/cancelled"));
        assert_eq!(client.in_flight(), 1);
        drop(handle);
        assert_eq!(client.in_flight(), 0);
        assert!(lines.try_recv().is_err(), "the server was notified twice");
    }

    #[test]
    fn a_request_cancelled_in_the_queue_is_not_written() {
        let (client, mut lines) = client();
        let mut handle = client.request(&REQUEST).unwrap();
        assert!(!handle.cancel());
        assert!(!client.start_writing(&lines.try_recv().unwrap()));
        assert!(lines.try_recv().is_err());
    }

    #[test]
    fn a_request_dropped_in_the_queue_is_not_written() {
        let (client, mut lines) = client();
        let handle = client.request(&REQUEST).unwrap();
        assert!(!handle.forwarded());
        drop(handle);
        assert!(!client.start_writing(&lines.try_recv().unwrap()));
        assert!(lines.try_recv().is_err(), "the server never saw the request, so there is nothing to cancel");
    }

    #[test]
    fn queued_bytes_are_bounded_until_the_server_reads() {
        let (client, mut lines) = client();
        let params = vec![b' '; 20 << 20];
        let large = Request { params: Params::Plain(&params), ..REQUEST };
        let _first = client.request(&large).unwrap();
        assert_eq!(client.request(&large).unwrap_err(), QueueError::Full);
        let _small = client.request(&REQUEST).unwrap();
        assert!(client.start_writing(&lines.try_recv().unwrap()));
        client.request(&large).unwrap();
    }
}
