//! The JSON-RPC client of one run of the tool server.
//!
//! - [`request`]: sends a request and waits for its outcome; [`pending`]: the requests in flight.
//! - [`outgoing`]: the queue of lines to the server; [`incoming`] and [`message`]: the lines it wrote.

mod incoming;
mod message;
mod outgoing;
mod pending;
mod request;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::metrics::Metrics;
use pending::PendingRequests;

pub(super) use incoming::Answers;
pub(super) use outgoing::{Outgoing, Sent};
pub(super) use pending::MAX_QUEUED_BYTES;
pub(in crate::shim) use request::{Params, QueueError, Request, RequestHandle, RequestOutcome};

/// The client of one run. It only queues lines and matches responses; [`pipes`](super::pipes) does the I/O.
#[derive(Debug)]
pub(in crate::shim) struct RpcClient {
    pending: Mutex<PendingRequests>,
    queue: mpsc::Sender<Outgoing>,
    closed: CancellationToken,
    phase: Mutex<Phase>,
    /// The MCP revision that the server and this client speak.
    revision: Mutex<Option<&'static str>>,
    /// Notifies whoever lists the tools that there are others.
    tools_changed: Notify,
    metrics: Arc<Metrics>,
}

/// How far a server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does not listen on its port. Only of servers that serve HTTP.
    Connecting,
    /// It has not answered `initialize`.
    #[default]
    Initializing,
    /// It was told that it is initialized, and lists its tools.
    Listing,
    /// It takes calls, several at a time.
    Started,
}

/// The MCP revision without sessions: each request says in its `_meta` what the client is.
pub(in crate::shim::server) const MODERN: &str = "2026-07-28";
/// What each request has in its `_meta` then.
const MODERN_META: &str = concat!(
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"mcp-fleet","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

impl Phase {
    /// Returns what the server has not done yet, for people.
    pub(super) const fn missing(self) -> &'static str {
        match self {
            Self::Connecting => "it does not listen on its port",
            Self::Initializing => "it has not answered `initialize`",
            Self::Listing | Self::Started => "it has not listed its tools",
        }
    }
}

impl RpcClient {
    /// Creates the client and the queue of lines that have to be written to the server.
    pub(super) fn new(metrics: Arc<Metrics>) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (queue, lines) = mpsc::channel(outgoing::MAX_QUEUED_LINES);
        let pending = Mutex::new(PendingRequests::new(metrics.in_flight.clone()));
        let (closed, phase, tools_changed) = (CancellationToken::new(), Mutex::default(), Notify::new());
        (Arc::new(Self { pending, queue, closed, phase, revision: Mutex::default(), tools_changed, metrics }), lines)
    }

    /// Records how far the server has come.
    pub(super) fn set_phase(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    /// Returns how far the server has come.
    pub(super) fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// Records the MCP revision of all further messages.
    pub(super) fn set_revision(&self, revision: Option<&'static str>) {
        *self.revision.lock() = revision;
    }

    /// Returns the MCP revision of messages. None while it is not known.
    pub(super) fn revision(&self) -> Option<&'static str> {
        *self.revision.lock()
    }

    /// Returns what each request has in its `_meta`, as members of an object; empty before MCP 2026-07-28.
    pub(in crate::shim) fn meta(&self) -> &'static str {
        if self.revision() == Some(MODERN) { MODERN_META } else { "" }
    }

    /// Waits until the server says that it has other tools.
    pub(super) async fn tools_changed(&self) {
        self.tools_changed.notified().await;
    }

    /// Returns the number of requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.lock().len()
    }

    /// Returns whether the server may be working on a request.
    pub(super) fn has_forwarded(&self) -> bool {
        self.pending.lock().has_forwarded()
    }

    /// Waits until the client is closed.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Closes the client: requests in flight end with [`RequestOutcome::ServerEnded`], and new ones fail. The tasks
    /// that read and write the server's pipes end, and its standard input is closed with them.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.pending.lock().close();
    }
}
