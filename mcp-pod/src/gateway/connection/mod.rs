//! Connections of agents: TLS, HTTP/1.1 and HTTP/2, with limits on connections, request heads and time.
//!
//! Start with [`mod@listen`], which accepts connections and hands each to a worker thread. [`places`] decides which are
//! accepted, [`address_limit`] bounds the handshakes of one address. [`serve`] speaks HTTP on one connection, over a
//! [`metered`] stream. [`peer`] is the client at its other end.

mod address_limit;
mod listen;
mod metered;
mod peer;
mod places;
mod serve;

pub use listen::{listen, listen_plain};
pub(crate) use peer::Peer;
pub(crate) use places::Refusal;
