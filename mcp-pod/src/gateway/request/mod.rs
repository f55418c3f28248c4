//! Reading of one HTTP request: its caller, its server, and the MCP message in it.
//!
//! Start with [`authenticate`], which checks the bearer token; [`route`] checks the other headers and the path.
//! [`mod@read_body`] reads the body within its limits and [`decode`] parses it. [`session_id`] seals and opens legacy
//! session ids.

mod authenticate;
mod decode;
mod read_body;
pub(crate) mod route;
mod session_id;

pub(crate) use authenticate::{Caller, FailureLimit, TokenVerifier, Unauthenticated, check_token};
#[cfg(test)]
pub(crate) use decode::read_message;
pub(crate) use decode::{
    CallParams, Era, EraError, Id, IdScan, InvalidMessage, McpHeaders, Message, ParamsError, Revision, SetAside,
    TOOLS_CALL, detect_era, known_method, read_message_or_rest,
};
pub(crate) use read_body::{BodyError, check_body, discard, next_chunk, read_body};
pub(crate) use route::HeadError;
pub(crate) use session_id::{SealError, SessionOwner, SessionSealer};
