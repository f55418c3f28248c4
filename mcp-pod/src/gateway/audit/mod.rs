//! The audit trail: one JSON line for every decision, on standard output.
//!
//! A call takes its place in the queue ([`Audit::place`]) before it is forwarded, so that its line can always be
//! written afterwards; where no place can be had, the call is denied with `audit_unavailable`. [`line`] says what
//! stands in a line, [`writer`] gets lines to the sink without a system call for each.

mod line;
mod writer;

pub use line::{Decision, Entry, Name};
pub use writer::{Audit, Blocked, Place};
