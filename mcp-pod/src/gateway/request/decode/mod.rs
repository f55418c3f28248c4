//! Decoding of one MCP message, from the bytes of a body.
//!
//! Start with [`message`], the JSON-RPC envelope. [`era`] determines from headers and `_meta` whether a message belongs
//! to revision 2026-07-28 or to an earlier one; [`revision`] and [`method`] list what is offered; [`params`] reads the
//! parameters of `tools/call`, and [`set_aside`] separates arguments that cannot be read. [`id_scan`] finds the id of a message
//! that is not kept.

mod era;
mod id_scan;
mod message;
mod method;
mod params;
mod revision;
mod set_aside;

pub(crate) use era::{Era, EraError, McpHeaders, detect_era};
pub(crate) use id_scan::IdScan;
#[cfg(test)]
pub(crate) use message::read_message;
use message::read_metered_message;
pub(crate) use message::{Id, IdError, InvalidMessage, Message};
pub(crate) use method::{TOOLS_CALL, known_method};
pub(crate) use params::{CallParams, ParamsError};
pub(crate) use revision::Revision;
pub(crate) use set_aside::{SetAside, read_message_or_rest};

#[cfg(test)]
mod properties;
