//! From bytes to one message of one revision, or a refusal.
//!
//! [`message`] is the JSON-RPC envelope, [`era`] tells which revision a request is made in, from its headers and its
//! `_meta` together, [`params`] are the parameters that each method takes.

mod era;
mod message;
mod method;
mod params;
mod revision;

pub(crate) use era::{Era, EraError, McpHeaders, era};
pub(crate) use message::{Id, InvalidMessage, Message, read};
pub(crate) use method::{CALL, known};
pub(crate) use params::{CallParams, ParamsError, Trace};
pub(crate) use revision::Revision;

#[cfg(test)]
mod properties;
