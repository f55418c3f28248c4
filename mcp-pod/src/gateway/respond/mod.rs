//! Answers: JSON-RPC results and errors over HTTP, and event streams.
//!
//! [`rpc`] writes results and errors, [`denial`] what policy denies, and [`cors`] lets pages of
//! allowed origins read them. A [`Rejection`] is how any stage ends a request.

mod body;
mod cors;
mod denial;
mod rejection;
mod rpc;
mod sse;
mod warning;

pub(crate) use body::Body;
pub(crate) use cors::{allow_origin, preflight};
pub(crate) use denial::{denied_call, denied_request, unauthorised};
pub(crate) use rejection::{Rejection, Trail};
pub(crate) use rpc::{Failure, accepted, add_id, error, error_message, message, result, result_message};
pub(crate) use sse::{COMMENT, event, event_stream};
pub(crate) use warning::with_warning;
