//! Defects that the model must find. They are in the model only, not in the product.

/// A mistake that an implementation of the protocol could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// A lease counts from when the gateway reads the answer, not from when it sent the beat.
    LeaseFromReceipt,
    /// A gateway acknowledges a view before it stops to admit the calls that the view forbids.
    AcknowledgeBeforePreparing,
    /// A lease that has ended is continued by an answer that arrives late.
    ContinueEndedLease,
    /// The leader considers a lease ended at the time that its own clock shows.
    NoMargin,
    /// The leader takes a lease for ended when the stream of the gateway ends.
    EndedWithTheStream,
    /// A new leader does not wait for leases that earlier leaders granted.
    NoRecovery,
    /// A gateway does what an earlier leader has answered.
    AnswerOfEarlierTerm,
    /// A gateway that prepares for a view forgets that it has prepared for another one.
    ForgetPreparedViews,
    /// The leader never tells a gateway to apply a view.
    NeverApply,
}
