//! Access to the Kubernetes API that knows nothing of the operator's own kinds of work: [`apply`] writes objects,
//! [`cache`] keeps them in memory, [`leader`] elects one replica, [`events`] and [`labels`] describe objects to people and
//! to selectors. [`client()`] gives every call a time limit.

pub(crate) mod apply;
pub(crate) mod cache;
mod client;
pub(crate) mod events;
pub(crate) mod labels;
pub mod leader;
pub(crate) mod timeout;

pub use client::client;

/// The field manager of everything that the operator writes.
pub(crate) const FIELD_MANAGER: &str = "mcp-fleet";
