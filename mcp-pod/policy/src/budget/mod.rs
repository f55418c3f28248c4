//! The gateway's side of budgets: what it has leased of them, and what it took out.
//!
//! The ledger charges a lease before the gateway hears of it, so whatever the book gives out is covered. A call takes
//! from every budget that covers it or from none, and it is spent in full unless the server certainly never saw it.
//! The book speaks no protocol: its driver sends the requests and reports that it gives out (reports first, so that
//! what is returned can be leased again) and feeds back the answers.

mod account;
mod book;
mod items;
mod lease;

use std::time::Duration;

use crate::denial::Denial;
use crate::units::Micros;

pub use book::Book;

/// A call that wants to be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'c> {
    /// The caller, `<namespace>/<name>`.
    pub principal: &'c str,
    /// The server's name.
    pub server: &'c str,
    /// The tool's name.
    pub tool: &'c str,
    /// What it costs.
    pub price: Micros,
}

/// What became of a call that wanted to be paid.
#[derive(Debug)]
pub enum Outcome {
    /// It is paid; settle it.
    Reserved(Reservation),
    /// A lease has been asked for ([`Book::take_requests`]); reserve again once it is answered.
    NeedLease,
    /// It cannot be paid.
    Refused(Denial),
}

/// What was taken out for one call, to be given to [`Book::settle`] exactly once. If it is lost instead, it counts as
/// spent when its lease ends.
#[must_use = "a reservation has to be settled"]
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    parts: Vec<Part>,
}

/// What was taken out of one lease.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    lease: u64,
    item: usize,
    spend: Spend,
}

/// What a call cost in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// What was reserved: the server saw the call, or may have.
    Full,
    /// Nothing: the server certainly never saw it.
    Nothing,
}

/// Money and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spend {
    amount: Micros,
    calls: u64,
}

impl Spend {
    const fn is_nothing(self) -> bool {
        self.amount.get() == 0 && self.calls == 0
    }

    fn covers(self, other: Self) -> bool {
        self.amount >= other.amount && self.calls >= other.calls
    }

    const fn plus(self, other: Self) -> Self {
        Self { amount: self.amount.saturating_add(other.amount), calls: self.calls.saturating_add(other.calls) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { amount: self.amount.saturating_sub(other.amount), calls: self.calls.saturating_sub(other.calls) }
    }
}

/// Asks the ledger for a part of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Unique in this book; asked again with the same number after a reconnect.
    pub request: u64,
    /// The budget.
    pub budget_uid: String,
    /// What would be good to have.
    pub amount: Micros,
    /// The least that is of use.
    pub minimum_amount: Micros,
    /// The same in calls.
    pub calls: u64,
    /// The least calls that are of use.
    pub minimum_calls: u64,
}

/// The ledger's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// The number of the request.
    pub request: u64,
    /// The budget.
    pub budget_uid: String,
    /// What was decided.
    pub outcome: LeaseOutcome,
}

/// What the ledger decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// A lease, charged already.
    Granted(Grant),
    /// There is less than the minimum left.
    Exhausted {
        /// When the period ends, in Unix seconds.
        period_end: i64,
    },
    /// The ledger could not be written.
    Unavailable,
    /// The ledger knows no such budget of this tenant.
    UnknownBudget,
}

/// A lease as it is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id, opaque.
    pub lease: String,
    /// Money that may be spent from it.
    pub amount: Micros,
    /// Calls that may be made from it.
    pub calls: u64,
    /// How long, from now; at most to the end of the period.
    pub valid: Duration,
}

/// What was spent from a lease so far: totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendReport {
    /// The lease.
    pub lease: String,
    /// Its budget.
    pub budget_uid: String,
    /// Counts up within the lease.
    pub sequence: u64,
    /// Money spent.
    pub amount: Micros,
    /// Calls made.
    pub calls: u64,
    /// Nothing more will be spent: what is left can be refunded.
    pub last: bool,
    /// Who spent it; sums to `amount` and `calls`.
    pub items: Vec<SpendItem>,
}

/// What one principal spent on one tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpendItem {
    /// `<namespace>/<name>`.
    pub principal: String,
    /// The server's name.
    pub server: String,
    /// The tool's name.
    pub tool: String,
    /// Money spent.
    pub amount: Micros,
    /// Calls made.
    pub calls: u64,
}

#[cfg(test)]
mod tests;
