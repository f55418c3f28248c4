//! The chain through the audit lines of one gateway process, and its verification.
//!
//! Each line has the ID of its chain, its number, and the digest of the line before. So a line that was removed, changed,
//! added or moved shows. [`Chain`] adds these fields to lines as they are written, [`Verifier`] checks lines that were
//! collected. The end of a chain is only protected by a [`Head`] that is stored elsewhere: someone who can cut off the log
//! can also write another end.

#![warn(missing_docs)]

mod chain;
mod digest;
mod log;
mod verify;

pub use chain::{Chain, Head};
pub use digest::{Digest, InvalidDigest};
pub use log::{Log, LogLine, MAX_LINE};
pub use verify::{Checkpoint, Place, Problem, Report, Summary, Verifier};
