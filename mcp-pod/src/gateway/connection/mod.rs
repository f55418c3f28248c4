//! Connections of agents, and of other gateways of the tenant: TLS, HTTP/1.1 and HTTP/2, with limits on connections, request
//! heads and time.
//!
//! Start with [`mod@listen`], which accepts connections and hands each to a worker thread. [`places`] decides which are
//! accepted of agents, [`peer`] which of other gateways, [`address_limit`] bounds the handshakes of one address. [`serve`] speaks HTTP on one connection, over a
//! [`metered`] stream. [`client`] is the client at its other end.

mod address_limit;
mod client;
mod listen;
mod metered;
mod peer;
mod places;
mod serve;

pub(crate) use address_limit::limited;
pub(crate) use client::Client;
pub(crate) use listen::{bound_buffers, notice_loss};
pub use listen::{listen, listen_peers, listen_plain};
pub(crate) use peer::PeerRequest;
pub(crate) use places::Refusal;
