//! The audit trail: one JSON line for every decision, on standard output.
//!
//! A call takes its place in the queue ([`Audit::place`]) before it is forwarded, so that its line can always be
//! written afterwards; where no place can be had, the call is denied with `audit_unavailable`. [`line`] says what
//! stands in a line, [`writer`] gets lines to the sink without a system call for each.

mod call_record;
mod digest;
mod line;
mod request_record;
mod writer;

pub(crate) use call_record::CallRecord;
pub(crate) use digest::AuditKey;
pub(crate) use request_record::RequestRecord;

pub use line::{Decision, Entry, Name};
pub use writer::{Audit, Blocked, Place};
