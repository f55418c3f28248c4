//! The working state of one book, which its lock protects.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::book::Report;
use super::error::LedgerError;
use super::record::Owner;
use super::store::StoredBook;

/// One book, and the reports that are queued for it.
pub(super) struct Slot {
    pub(super) owner: Option<Owner>,
    pub(super) stored: Option<StoredBook>,
    pub(super) pending: Vec<PendingReport>,
    /// When this replica last wrote the book.
    pub(super) written_at: Option<Instant>,
    /// When the book was last read or written.
    pub(super) synced_at: Option<Instant>,
}

/// A report that is queued for the next write.
pub(super) struct PendingReport {
    pub(super) tenant_uid: String,
    pub(super) report: Report,
    pub(super) done: oneshot::Sender<Result<(), LedgerError>>,
}
