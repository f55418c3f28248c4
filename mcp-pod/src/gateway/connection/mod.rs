//! Connections of agents: TLS, HTTP/1.1 and HTTP/2, with limits on connections, request heads and time.
//!
//! Start with [`mod@listen`], which accepts connections and hands each to a worker thread. [`serve`] speaks HTTP on one
//! connection; [`address_limit`] bounds how many connections one address has.

mod address_limit;
mod listen;
mod serve;

pub use listen::{listen, listen_plain};
