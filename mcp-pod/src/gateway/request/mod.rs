//! Reading one HTTP request: who sends it, for which server, and the one MCP message in it.
//!
//! [`authenticate`] checks the bearer token from the headers alone, [`route`] the rest of the head; [`read_body`]
//! reads the body within its limits and [`decode`] parses it. [`session_id`] seals and opens legacy session ids.

mod authenticate;
mod decode;
mod read_body;
pub(crate) mod route;
mod session_id;

pub(crate) use authenticate::{Caller, FailureLimit, TokenVerifier, Unauthenticated, check};
pub(crate) use decode::{
    CALL, CallParams, Era, EraError, Id, InvalidMessage, McpHeaders, Message, ParamsError, Revision, Trace, era, known,
    read,
};
pub(crate) use read_body::{BodyError, read_body};
pub(crate) use route::HeadError;
pub(crate) use session_id::{SessionOwner, SessionSealer, Unsealable};
