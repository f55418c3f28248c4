//! How a change of a book is committed: read, compute, and replace the version that was read. No I/O: the caller does
//! what [`Commit::step`] asks for and reports the outcome.
//!
//! Two operators that both believe they lead may change the same book. So a write names the version that it was computed
//! from, and a result that needs no write is first checked against a fresh read. A result may leave this process only
//! after [`Step::Done`].

use super::book::{Book, GrantedLease, LeaseRequest, Limit, Refusal, Report, ReportOutcome, ReportRejection};

/// Maximum number of attempts to write a book when others write it at the same time.
pub const MAX_ATTEMPTS: usize = 8;

/// What a computed change requires before its result may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Nothing: the book did not change, and the result is safe even if the copy is outdated.
    Unchanged,
    /// A copy that is current: the book did not change, but an outdated copy could give another result.
    NeedsCurrent,
    /// A write: the book changed.
    Changed,
}

/// What the caller has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read the book, and call [`Commit::read`].
    Read,
    /// Compute the change from the copy, and call [`Commit::computed`].
    Compute,
    /// Replace the version of the book that the change was computed from, and call [`Commit::written`] or
    /// [`Commit::conflicted`]. If the outcome of the write is not known, the commit has failed, and the copy is outdated.
    Write,
    /// Use the result.
    Done,
    /// Give up: other writers changed the book at every attempt.
    Contended,
}

/// The progress of one change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    step: Step,
    attempts: usize,
    /// Whether the copy was read for this change.
    fresh: bool,
}

impl Commit {
    /// Begins a change. `current` says whether the copy is the newest version that this operator knows of.
    pub const fn new(current: bool) -> Self {
        Self { step: if current { Step::Compute } else { Step::Read }, attempts: 1, fresh: false }
    }

    /// Returns what to do next.
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Records that the book was read, and is the copy now.
    pub const fn read(&mut self) {
        self.fresh = true;
        self.step = Step::Compute;
    }

    /// Records what the computed change requires.
    pub const fn computed(&mut self, effect: Effect) {
        self.step = match effect {
            Effect::Changed => Step::Write,
            Effect::NeedsCurrent if !self.fresh => return self.retry(),
            Effect::NeedsCurrent | Effect::Unchanged => Step::Done,
        };
    }

    /// Records that the book was written, and is the copy now.
    pub const fn written(&mut self) {
        self.step = Step::Done;
    }

    /// Records that another writer was faster.
    pub const fn conflicted(&mut self) {
        self.retry();
    }

    const fn retry(&mut self) {
        self.attempts += 1;
        self.step = if self.attempts > MAX_ATTEMPTS { Step::Contended } else { Step::Read };
    }
}

/// A lease request, with what the operator decides about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The request.
    pub request: LeaseRequest,
    /// Limit of the budget.
    pub limit: Limit,
    /// Identifier of the lease, if it is new.
    pub id: String,
    /// Deadline of the lease, if it is new, in Unix milliseconds.
    pub deadline: i64,
    /// End of the period, in Unix seconds.
    pub period_end: i64,
}

/// Results of one commit, in the order of what was committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Results {
    /// Results of the reports.
    pub reports: Vec<Result<ReportOutcome, ReportRejection>>,
    /// Results of the lease requests.
    pub grants: Vec<Result<GrantedLease, Refusal>>,
    /// What the lease requests require.
    pub grants_effect: Effect,
    /// What the reports require if they are to be acknowledged.
    pub reports_effect: Effect,
}

/// Applies reports to a book, and then lease requests, so that returned amounts can be leased again.
///
/// `refuse_from_copy` says whether the copy is recent enough to refuse a lease.
pub fn apply<'a>(
    book: &mut Book,
    reports: impl Iterator<Item = &'a Report>,
    grants: impl Iterator<Item = &'a Grant>,
    refuse_from_copy: bool,
) -> Results {
    let reports: Vec<_> = reports.map(|report| book.report(report)).collect();
    let applied = |result: &Result<_, _>| matches!(result, Ok(ReportOutcome::Applied));
    // A report that changes nothing is acknowledged only from a current copy: an outdated one may lack its lease.
    let effect = |result| if applied(result) { Effect::Changed } else { Effect::NeedsCurrent };
    let reports_effect = reports.iter().map(effect).max().unwrap_or(Effect::Unchanged);
    let mut grants_effect = Effect::Unchanged;
    let grants = grants
        .map(|grant| {
            // If the period of a spend limit was changed, a longer one may begin at the same time.
            book.span.end = book.span.end.max(grant.period_end);
            let result = book.grant(&grant.request, grant.limit, grant.id.clone(), grant.deadline);
            grants_effect = grants_effect.max(match &result {
                Ok(granted) if granted.new => Effect::Changed,
                Err(_) if refuse_from_copy => Effect::Unchanged,
                // Another leader may have settled the lease, or returned what is missing.
                Ok(_) | Err(_) => Effect::NeedsCurrent,
            });
            result
        })
        .collect();
    Results { reports, grants, grants_effect, reports_effect }
}
