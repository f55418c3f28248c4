//! The closed loop: each connection makes its next call when it has received the answer to the last one.

mod client;
pub(crate) mod message;
mod slot;

pub(crate) use client::{Client, Target};
pub(crate) use slot::{Slot, run};

/// Smaller text size: bytes of text in the argument, and in the result.
pub(crate) const SMALL: usize = 200;
/// Larger text size, in bytes.
pub(crate) const LARGE: usize = 32 * 1024;
