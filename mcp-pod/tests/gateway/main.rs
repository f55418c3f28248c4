//! Tests of a real gateway on loopback, with TLS clients, a fake shim and a policy from the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_debug_implementations
)]

mod authentication;
mod breakers;
mod built_in;
mod cancellation;
mod catalogue;
mod cors;
mod denials;
mod end_to_end;
mod evidence;
mod families;
mod floods;
mod forms;
mod forwarding;
mod forwarding_attacks;
mod forwarding_changes;
mod forwarding_limits;
mod homes;
mod hostile;
mod http2;
mod kill_switch;
mod legacy;
mod limits;
mod loops;
mod memory;
mod modern;
mod names;
mod pods;
mod policy_change;
mod process;
mod progress;
mod public_names;
mod refusals;
mod shares;
mod streams;
mod support;
mod trace;
mod upstreams;
