//! The closed loop: each connection makes its next call when it has the answer to the last.

mod client;
pub(crate) mod message;
mod slot;

pub(crate) use client::{Client, Target};
pub(crate) use slot::{Slot, run};

/// The smaller of the sizes: bytes of text in the argument, and in the result.
pub(crate) const SMALL: usize = 200;
/// The larger one.
pub(crate) const LARGE: usize = 32 * 1024;
