//! Errors of the ledger.

use std::sync::Arc;

use super::book::ReportRejection;
use super::store::StoreError;

/// Why a ledger operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// A book could not be read or written. Shared by everyone whose operation was part of the write.
    #[error(transparent)]
    Store(Arc<StoreError>),
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

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
