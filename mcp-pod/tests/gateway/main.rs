//! A real gateway on loopback: TLS in front, a shim of our making behind, a policy installed by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_debug_implementations
)]

mod authentication;
mod cancelling;
mod governing;
mod hostile;
mod http2;
mod legacy;
mod modern;
mod process;
mod progress;
mod refusals;
mod support;
mod upstreams;
mod whole;
