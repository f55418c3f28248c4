//! The book of one budget in one period: plain data and pure arithmetic. Start at [`Book`].
//!
//! A lease is charged in full when it is granted. Only its holder's final report returns what was not spent; without
//! one, the unreported amount is forfeited. So even if messages are lost, repeated, late or out of order:
//! spent at the gateways ≤ settled + leased + forfeited ≤ the limit at the time of each grant.

mod close;
mod lease;
mod report;
#[cfg(test)]
mod tests;

pub use close::ClosedPeriod;
pub use lease::{GrantedLease, LeaseRequest, Refusal};
pub use report::{Report, ReportItem, ReportOutcome, ReportRejection};

use std::time::Duration;

use super::period::Span;

/// How long a lease may be spent from.
pub const LEASE_DURATION: Duration = Duration::from_mins(2);
/// How long after its deadline a lease may still be reported on before it is forfeited.
pub const REPORT_GRACE: Duration = Duration::from_mins(1);
/// Maximum number of open leases. Further requests are refused until some leases end.
pub const MAX_LEASES: usize = 64;
/// Maximum number of forfeited leases that are stored individually. Older ones are added up.
pub const MAX_FORFEITS: usize = 64;

/// How much detail a book has. Spend beyond it is added to the shared row, which has empty names.
///
/// etcd accepts objects of up to 1.5 MiB, and a book is written whole, many times in its period. With these limits a book
/// stays far below that; a test knows how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capacity {
    /// Maximum number of rows by principal, server and tool.
    pub rows: usize,
    /// Maximum length of the names of all rows together, in bytes.
    pub name_bytes: usize,
    /// Maximum number of entries over all leases.
    pub entries: usize,
}

impl Capacity {
    /// Capacity for a tenant's spend limit. Its rows are those of `mcp_fleet_spend_total`.
    pub const SPEND_LIMIT: Self = Self { rows: 1000, name_bytes: 128 * 1024, entries: 1000 };
    /// Capacity for any other budget. Only people read its rows, and a tenant can have hundreds of budgets.
    pub const BUDGET: Self = Self { rows: 64, name_bytes: 8 * 1024, entries: 256 };
}

/// An amount of money and a number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Amount {
    /// Money, in millionths of the currency.
    pub micros: u64,
    /// Number of calls.
    pub calls: u64,
}

impl Amount {
    /// Adds both parts; each saturates at the maximum.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self { micros: self.micros.saturating_add(other.micros), calls: self.calls.saturating_add(other.calls) }
    }

    /// Subtracts both parts; each saturates at zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self { micros: self.micros.saturating_sub(other.micros), calls: self.calls.saturating_sub(other.calls) }
    }

    /// Returns whether both parts are at least those of `other`.
    pub const fn covers(self, other: Self) -> bool {
        self.micros >= other.micros && self.calls >= other.calls
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Self::saturating_add)
    }
}

/// Limits on money and calls. A part without a limit is counted, but not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Money, in millionths of the currency.
    pub micros: Option<u64>,
    /// Number of calls.
    pub calls: Option<u64>,
}

impl Limit {
    /// Returns what remains of the limit after `used`: zero in a part without a limit.
    #[must_use]
    pub const fn remaining(self, used: Amount) -> Amount {
        const fn part(limit: Option<u64>, used: u64) -> u64 {
            match limit {
                Some(limit) => limit.saturating_sub(used),
                None => 0,
            }
        }
        Amount { micros: part(self.micros, used.micros), calls: part(self.calls, used.calls) }
    }

    /// Returns whether `used` exceeds the limit in no part.
    pub const fn allows(self, used: Amount) -> bool {
        const fn part(limit: Option<u64>, used: u64) -> bool {
            match limit {
                Some(limit) => used <= limit,
                None => true,
            }
        }
        part(self.micros, used.micros) && part(self.calls, used.calls)
    }
}

/// Holder of a lease: one process of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// UID of the pod, from its verified token.
    pub pod_uid: String,
    /// Identifier that the process chose at random when it started.
    pub epoch: String,
}

/// A part of the budget that one holder may spend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Identifier on the control stream.
    pub id: String,
    /// Process that may spend the lease and report on it.
    pub holder: Holder,
    /// Number of the request that the lease was granted for; unique for its holder.
    pub request: u64,
    /// Amount that was charged. Absent parts were not limited when the lease was granted.
    pub granted: Limit,
    /// Time from which the lease may no longer be spent, in Unix milliseconds on the clock of the operator that granted
    /// it.
    pub deadline: i64,
    /// Sequence number of the last report that was applied; 0 before the first.
    pub sequence: u64,
    /// Reported spend, by row.
    pub entries: Vec<Entry>,
}

impl Lease {
    /// Returns the reported spend.
    pub fn spent(&self) -> Amount {
        self.entries.iter().map(|entry| entry.amount).sum()
    }

    /// Returns the amount that was charged and not yet reported as spent.
    pub fn outstanding(&self) -> Amount {
        self.granted.remaining(self.spent())
    }
}

/// The part of a lease's spend that belongs to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Index of the row in its book.
    pub row: usize,
    /// Amount that was spent.
    pub amount: Amount,
}

/// Settled spend of one principal with one tool. The shared row has empty names: it holds all spend that has no row of
/// its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// `<namespace>/<name>` of the principal.
    pub principal: String,
    /// Name of the server.
    pub server: String,
    /// Name of the tool.
    pub tool: String,
    /// Amount that was spent over all leases.
    pub amount: Amount,
}

/// A lease that ended without a final report.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forfeit {
    /// The lease, with what was reported so far.
    pub lease: Lease,
    /// When the lease was forfeited, Unix seconds.
    pub at: i64,
}

/// Settled spend, open leases and forfeits of one budget in one period.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Book {
    /// How many rows and entries it may have.
    pub capacity: Capacity,
    /// Period that the book covers.
    pub span: Span,
    /// Settled spend.
    pub rows: Vec<Row>,
    /// Sum of `rows`, kept up to date so that a lease does not add up all of them.
    pub row_total: Amount,
    /// Open leases: they may still be spent or reported on.
    pub leases: Vec<Lease>,
    /// The most recent forfeited leases.
    pub forfeits: Vec<Forfeit>,
    /// Sum of the forfeited leases that are no longer in `forfeits`.
    pub older_forfeits: Amount,
    /// Settled spend whose rows were removed when the period was closed; none while it is open.
    pub closed: Option<Amount>,
    /// In the book of all closed periods: the period that was added last.
    pub last_closed: Option<ClosedPeriod>,
    /// UID of the budget in the cluster that the fleet was restored from. Its book for the same period is part of this one.
    pub restored_from: Option<String>,
}

impl Book {
    /// Creates an empty book for a period, with the larger capacity.
    pub const fn new(span: Span) -> Self {
        Self {
            capacity: Capacity::SPEND_LIMIT,
            span,
            rows: Vec::new(),
            row_total: Amount { micros: 0, calls: 0 },
            leases: Vec::new(),
            forfeits: Vec::new(),
            older_forfeits: Amount { micros: 0, calls: 0 },
            closed: None,
            last_closed: None,
            restored_from: None,
        }
    }

    /// Returns the reported spend of all leases, ended ones included.
    pub fn settled(&self) -> Amount {
        self.row_total.saturating_add(self.closed.unwrap_or_default())
    }

    /// Adds an amount to a row.
    fn add_to_row(&mut self, row: usize, amount: Amount) {
        let row = &mut self.rows[row];
        row.amount = row.amount.saturating_add(amount);
        self.row_total = self.row_total.saturating_add(amount);
    }

    /// Returns the amount that is charged for open leases and not yet settled.
    pub fn leased(&self) -> Amount {
        self.leases.iter().map(Lease::outstanding).sum()
    }

    /// Returns the amount that is charged for forfeited leases: it may or may not have been spent.
    pub fn forfeited(&self) -> Amount {
        self.forfeits
            .iter()
            .map(|forfeit| forfeit.lease.outstanding())
            .sum::<Amount>()
            .saturating_add(self.older_forfeits)
    }

    /// Returns the total that is charged against the limit.
    pub fn charged(&self) -> Amount {
        self.settled().saturating_add(self.leased()).saturating_add(self.forfeited())
    }

    /// Returns whether a report on this lease can change the book.
    pub fn has_lease(&self, id: &str) -> bool {
        self.leases.iter().any(|lease| lease.id == id) || self.forfeits.iter().any(|forfeit| forfeit.lease.id == id)
    }

    /// Forfeits the open leases that match a condition. Returns whether there were any.
    ///
    /// A late report still settles a forfeited lease while it is in `forfeits`.
    pub fn forfeit(&mut self, now: i64, mut condition: impl FnMut(&Lease) -> bool) -> bool {
        let before = self.leases.len();
        let (ended, open): (Vec<Lease>, _) =
            std::mem::take(&mut self.leases).into_iter().partition(|lease| condition(lease));
        self.leases = open;
        self.forfeits.extend(
            ended
                .into_iter()
                .filter(|lease| lease.outstanding() != Amount::default())
                .map(|lease| Forfeit { lease, at: now }),
        );
        while self.forfeits.len() > MAX_FORFEITS {
            let oldest = self.forfeits.remove(0);
            self.older_forfeits = self.older_forfeits.saturating_add(oldest.lease.outstanding());
        }
        self.leases.len() != before
    }

    /// Forfeits the leases whose deadline was at least `grace` milliseconds ago. Returns whether there were any.
    pub fn expire(&mut self, now_ms: i64, grace: i64) -> bool {
        self.forfeit(now_ms.div_euclid(1000), |lease| lease.deadline.saturating_add(grace) <= now_ms)
    }
}
