//! The audit line of a settled call.
//!
//! Digests of large texts are computed after the answer is on its way, by a task on the same thread, so that neither
//! this call nor calls on other threads wait for them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{ArgumentKey, Line, LineSlot, Subject};

/// Up to this many bytes, hashing costs less than a task.
const SMALL: usize = 2048;

/// What the audit line of a call is made from.
#[derive(Debug)]
pub(crate) struct CallRecord {
    pub(crate) slot: LineSlot,
    pub(crate) subject: Arc<Subject<'static>>,
    /// The line, without the digest of the result, and without that of the arguments if it is not known yet.
    pub(crate) line: Line,
    pub(crate) key: ArgumentKey,
    /// Arguments as they were forwarded.
    pub(crate) arguments: Bytes,
    /// Result as the server wrote it, if it was released.
    pub(crate) result: Option<Bytes>,
}

impl CallRecord {
    /// Writes the line now or soon, then drops `guard`.
    pub(crate) fn submit(self, guard: impl Send + 'static) {
        let size = self.arguments.len() + self.result.as_ref().map_or(0, Bytes::len);
        let write = move || {
            self.write();
            drop(guard);
        };
        match Handle::try_current() {
            Ok(runtime) if size > SMALL => drop(runtime.spawn(async { write() })),
            _ => write(),
        }
    }

    fn write(self) {
        let Self { slot, subject, mut line, key, arguments, result } = self;
        line.arguments = Some(line.arguments.unwrap_or_else(|| key.digest(&arguments)));
        line.result = result.map(|result| *blake3::hash(&result).as_bytes());
        slot.write(&line, &subject);
    }
}
