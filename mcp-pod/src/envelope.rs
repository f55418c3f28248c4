//! The protocol between gateway and shim, version 1: HTTP over mutual TLS.
//!
//! - `GET /v1/server` returns a [`ServerReport`], or 503 until the server has started.
//! - `POST /v1/call` has a body of two lines: a [`CallHeader`], and the `params` of `tools/call` as one line of JSON,
//!   which the shim passes to the server. The response is `application/x-ndjson`: any number of
//!   [`ShimEvent::Progress`], if the header asks for progress, then exactly one other event. Closing the connection
//!   before that cancels the call.
//! - `POST /v1/cancel` has the ULID of a call as its body, and cancels that call without closing its connection. The shim
//!   notifies the server, and still sends the last event when the server has answered or the call has timed out, so that
//!   the gateway knows how long the server works. The answer is 204, or 409 if no such call is in flight. A shim without
//!   this path answers 404; its calls can be cancelled only by closing their connections.
//!
//! Every response has the header [`EPOCH_HEADER`]. When its value changes, the server was restarted, and its report has
//! to be fetched again. Both sides reject unknown fields, so that no side can ignore a field that restricts a call. New
//! fields need a new version.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// Path of [`ServerReport`].
pub const SERVER_PATH: &str = "/v1/server";
/// Path of calls.
pub const CALL_PATH: &str = "/v1/call";
/// Path of cancellations.
pub const CANCEL_PATH: &str = "/v1/cancel";
/// Header that says how often the server was started, as a decimal number.
pub const EPOCH_HEADER: &str = "mcp-fleet-epoch";
/// Media type of calls and of their events.
pub const MEDIA_TYPE: &str = "application/x-ndjson";
/// Bytes of [`ShimEvent::Progress`] lines that one call may have. The shim drops further progress; the gateway ends a
/// call with more.
pub const MAX_PROGRESS_BYTES: usize = 1 << 20;

/// The first line of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallHeader {
    /// [`VERSION`].
    pub version: u32,
    /// ULID of the call, the same as in its audit line.
    pub call: String,
    /// UID of the calling principal.
    pub principal: String,
    /// Milliseconds from the arrival at the shim to the result.
    pub timeout_ms: u64,
    /// Largest answer of the server, in bytes as it wrote it. A larger one is withheld (`response_too_large`).
    pub max_response: u64,
    /// Whether the caller asked for progress.
    pub progress: bool,
    /// All paths among the arguments, with their granted roots. The shim checks them before it forwards the call,
    /// because only it can resolve links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathCheck>,
}

/// A path argument and its granted roots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PathCheck {
    /// Value of the argument.
    pub value: String,
    /// Absolute directories. The path must be at or below one of them, without any link.
    pub within: Vec<String>,
}

/// One line of the response to a call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ShimEvent {
    /// The `params` of `notifications/progress`, without the token.
    Progress(Box<RawValue>),
    /// The server's `result`, as it wrote it.
    Result(Box<RawValue>),
    /// The server's JSON-RPC `error`, as it wrote it.
    Error(Box<RawValue>),
    /// The shim refused the call, or got no usable answer from the server.
    Refused(Refusal),
}

/// Why the shim did not return an answer of the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Refusal {
    /// Reason code (`docs/reasons.md`).
    pub reason: String,
    /// Details for the audit line and the caller. Never contains the value of an argument.
    pub detail: String,
    /// Whether the server may have seen the call.
    pub forwarded: bool,
    /// Whether the server, which nobody had called for a while, was still starting. Sent only if it was: an earlier gateway takes an
    /// answer with it for invalid.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
}

/// How the server described itself when it started, and the tools that it listed last.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerReport {
    /// [`VERSION`].
    pub version: u32,
    /// The `result` of `initialize`, as the server wrote it.
    pub initialize: Box<RawValue>,
    /// The entries of `tools/list`, all pages, as the server wrote them.
    pub tools: Vec<Box<RawValue>>,
}
