//! What travels from gateway to shim over mutual TLS, version 1.
//!
//! - `GET /v1/server` answers a [`ServerReport`], or 503 while the server has not finished its start.
//! - `POST /v1/call` takes two lines: a [`CallHeader`], and the `params` of `tools/call` as one line of JSON, which
//!   the shim copies to the server unread. It answers `application/x-ndjson`: any number of
//!   [`ShimEvent::Progress`] (only if asked for), then exactly one other event. Closing the connection before that
//!   cancels the call.
//!
//! Every answer carries [`EPOCH_HEADER`]: when it changes, the server was started anew and its report has to be read
//! again. Unknown fields are refused on both sides: a field is a promise, and version 2 will say so.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version both sides speak.
pub const VERSION: u32 = 1;
/// Path of the report.
pub const SERVER_PATH: &str = "/v1/server";
/// Path of calls.
pub const CALL_PATH: &str = "/v1/call";
/// How often the server behind the shim was started, as a decimal number.
pub const EPOCH_HEADER: &str = "mcp-fleet-epoch";
/// Media type of both lines and events.
pub const MEDIA_TYPE: &str = "application/x-ndjson";

/// The first line of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallHeader {
    /// [`VERSION`].
    pub version: u32,
    /// The call's ULID, as it stands in the audit line.
    pub call: String,
    /// UID of the calling principal.
    pub principal: String,
    /// From the arrival at the shim to the result, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of the server's answer, as it wrote it, above which it is withheld (`response_too_large`).
    pub max_response: u64,
    /// Whether the caller wants progress.
    pub progress: bool,
    /// Every path among the arguments, with the roots it was granted: resolved by the shim before the server sees
    /// the call, because only there links can be followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathCheck>,
}

/// A path argument and where it may lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PathCheck {
    /// The value of the argument.
    pub value: String,
    /// Absolute directories, one of which it has to stay below without following a link.
    pub within: Vec<String>,
}

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ShimEvent {
    /// `params` of a `notifications/progress`, without the token.
    Progress(Box<RawValue>),
    /// The server's `result`, as it wrote it.
    Result(Box<RawValue>),
    /// The server's JSON-RPC `error`, as it wrote it.
    Error(Box<RawValue>),
    /// The shim refused the call, or could not have it done.
    Refused(Refusal),
}

/// Why the shim did not return the server's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Refusal {
    /// A name from the closed set of reasons (`docs/reasons.md`).
    pub reason: String,
    /// More, for the audit line and the caller; never an argument's value.
    pub detail: String,
    /// Whether the server has seen the call.
    pub forwarded: bool,
}

/// What the server said of itself when it started.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerReport {
    /// [`VERSION`].
    pub version: u32,
    /// The `result` of `initialize`, as the server wrote it.
    pub initialize: Box<RawValue>,
    /// The entries of `tools/list`, all pages, as the server wrote them.
    pub tools: Vec<Box<RawValue>>,
}
