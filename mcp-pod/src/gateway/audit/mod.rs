//! The audit trail: one JSON line for every decision, on standard output.
//!
//! A call reserves its lines in the queue ([`Audit::reserve_call`]) before it is forwarded, so that they can always be
//! written afterwards; while the queue is full, calls are denied with `audit_unavailable`. A call that changes something
//! has a line before it is forwarded, which survives the death of this process, and one when it is settled.
//!
//! [`mod@line`] is one line, [`subject`] the names in it. [`call_record`] makes the lines of admitted calls,
//! [`request_record`] those of all other requests, [`floods`] those that many rejections share. [`writer`] gets lines to the sink without a system call for each.

mod argument_key;
mod call_record;
mod floods;
mod line;
mod request_record;
mod subject;
mod writer;

pub(crate) use argument_key::ArgumentKey;
pub(crate) use call_record::CallRecord;
pub(crate) use floods::{Flood, Floods, SharedLine};
pub(crate) use line::{Decision, Line};
pub(crate) use request_record::RequestRecord;
pub(crate) use subject::{Name, Subject};
pub use writer::Audit;
pub(crate) use writer::{Blocked, CallSlots, LineSlot, PendingLine};
