//! Access to the Kubernetes API that is independent of the operator's own kinds: [`client`] connects to it, `apply`
//! writes objects, `cache` holds them in memory, `deletion` deletes objects that are proven to be unwanted, [`leader`]
//! elects one replica, and `events` reports to people.

pub(crate) mod apply;
pub(crate) mod cache;
pub mod client;
mod connections;
pub(crate) mod deletion;
pub(crate) mod events;
pub mod leader;
mod managed_fields;
pub(crate) mod requests;
mod time_limit;
pub(crate) mod timeout;

/// The field manager of everything that the operator writes.
pub(crate) const FIELD_MANAGER: &str = "mcp-fleet";
