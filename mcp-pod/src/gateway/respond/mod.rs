//! Answers: JSON-RPC results and errors over HTTP, denials, rejections, and event streams.

mod body;
mod denial;
mod rejection;
mod rpc;
mod sse;

pub(crate) use body::Body;
pub(crate) use denial::{denied_call, denied_request, unauthorised};
pub(crate) use rejection::Rejection;
pub(crate) use rpc::{Failure, accepted, error, error_message, message, result, result_message};
pub(crate) use sse::{EventStream, event};
