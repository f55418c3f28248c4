//! Errors of the ledger.

use super::book::ReportRejection;
use super::store::StoreError;

/// Why a ledger operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// A book could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Other writers changed the book at every attempt.
    #[error("failed to write a ledger: other writers kept changing it")]
    Contended,
    /// The calendar cannot represent the current period.
    #[error("failed to compute the period of a budget")]
    NoPeriod,
    /// The report contradicts the book.
    #[error("failed to apply a report")]
    Report(#[from] ReportRejection),
    /// The book belongs to another tenant.
    #[error("failed to apply a report: the lease belongs to another tenant")]
    WrongTenant,
}
