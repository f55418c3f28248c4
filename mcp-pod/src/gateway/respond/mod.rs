//! Answers: JSON-RPC results and errors over HTTP, refusals, and event streams.

mod body;
mod refusal;
mod rpc;
mod sse;

pub(crate) use body::Body;
pub(crate) use refusal::{denied_call, denied_request, unauthorised};
pub(crate) use rpc::{Failure, accepted, error, error_message, message, result, result_message};
pub(crate) use sse::{EventStream, event};
