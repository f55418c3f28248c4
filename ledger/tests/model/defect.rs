//! Defects that the model must find. They are in the model's operator only, not in the product.

/// A mistake that an implementation of the ledger could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// An overdue lease is returned to the budget, as if nothing had been spent from it.
    RefundOnExpiry,
    /// A lease is sent to the gateway before the book is written.
    GrantBeforeWrite,
    /// A report that arrives twice is added twice.
    DoubleSettle,
    /// A stale leader replaces a book without naming the version that it read.
    WriteWithoutCompareAndSwap,
    /// A request that is repeated after a failover gets a second lease.
    SecondLeaseForRepeatedRequest,
    /// A process of a pod may report on the leases of the process before it.
    ReportFromAnotherEpoch,
    /// What is returned after the end of a period is added to the next period.
    RefundIntoNextPeriod,
    /// A refusal to change the book is taken from a copy that another leader may have changed.
    AnswerFromStaleCopy,
}
