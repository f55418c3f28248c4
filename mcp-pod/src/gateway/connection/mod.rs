//! Connections of agents, and of other gateways of the tenant: TLS, HTTP/1.1 and HTTP/2, with limits on connections, request heads and time.
//!
//! Start with [`mod@listen`], which accepts connections and hands each to a worker thread. [`places`] decides which are
//! accepted, [`address_limit`] bounds the handshakes of one address. [`serve`] speaks HTTP on one connection, over a
//! [`metered`] stream. [`client`] is the client at its other end.

mod address_limit;
mod client;
mod listen;
mod metered;
mod places;
mod serve;

pub(crate) use client::{Client, reserve_forwarded};
pub(crate) use listen::keep_alive;
pub use listen::{listen, listen_peers, listen_plain};
pub(crate) use places::Refusal;
