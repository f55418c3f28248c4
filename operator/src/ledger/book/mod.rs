//! The book of one budget in one period, as plain data and pure arithmetic.
//!
//! What is granted is charged at once; only its holder's final report gives back what was not spent. Without one the
//! rest is forfeited. So whatever is lost, doubled, late or out of order:
//! spent at the gateways ≤ settled + leased + forfeited ≤ the limit at the time of each grant.

mod grant;
mod report;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use grant::{Ask, Granted, Refusal};
pub(crate) use report::{Item, Report, ReportError, Reported};

use super::period::Span;

/// Open leases in a book; more are refused until some end.
pub(crate) const MAX_LEASES: usize = 64;
/// Rows by principal, server and tool; what comes after goes to the row of the others.
pub(crate) const MAX_ROWS: usize = 1000;
/// Entries over all leases that name a row. With the rows, and names as long as they get, a record stays below the
/// 1.5 MiB that the API server takes.
pub(crate) const MAX_ENTRIES: usize = 1000;
/// Forfeited leases that are kept one by one; older ones are folded into one sum.
pub(crate) const MAX_FORFEITS: usize = 64;

/// Money in micro-units, and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Amount {
    /// Millionths of the currency.
    pub micros: u64,
    /// Calls.
    pub calls: u64,
}

impl Amount {
    /// The sum, or the largest number there is.
    #[must_use]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { micros: self.micros.saturating_add(other.micros), calls: self.calls.saturating_add(other.calls) }
    }

    /// The difference, or nothing.
    #[must_use]
    pub(crate) const fn minus(self, other: Self) -> Self {
        Self { micros: self.micros.saturating_sub(other.micros), calls: self.calls.saturating_sub(other.calls) }
    }

    /// At least the other in both parts.
    pub(crate) const fn covers(self, other: Self) -> bool {
        self.micros >= other.micros && self.calls >= other.calls
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Self::plus)
    }
}

/// A limit in each part; absent: that part is counted, but not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Millionths of the currency.
    pub micros: Option<u64>,
    /// Calls.
    pub calls: Option<u64>,
}

impl Limit {
    /// What of it is not used up: nothing in a part that is not limited.
    #[must_use]
    pub(crate) const fn left(self, used: Amount) -> Amount {
        const fn part(limit: Option<u64>, used: u64) -> u64 {
            match limit {
                Some(limit) => limit.saturating_sub(used),
                None => 0,
            }
        }
        Amount { micros: part(self.micros, used.micros), calls: part(self.calls, used.calls) }
    }

    /// Not exceeded in any part that is limited.
    pub(crate) const fn admits(self, used: Amount) -> bool {
        const fn part(limit: Option<u64>, used: u64) -> bool {
            match limit {
                Some(limit) => used <= limit,
                None => true,
            }
        }
        part(self.micros, used.micros) && part(self.calls, used.calls)
    }
}

/// Who holds a lease: one process of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Holder {
    /// The UID of the pod, from its verified token.
    pub pod_uid: String,
    /// Random at the start of the process.
    pub epoch: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pod_uid, self.epoch)
    }
}

/// A part of the budget that one holder may spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Names it on the control stream.
    pub id: String,
    /// Who may spend it, and report on it.
    pub holder: Holder,
    /// The request it answers, unique for its holder.
    pub request: u64,
    /// What was charged; absent parts were not limited when it was granted.
    pub granted: Limit,
    /// When it may no longer be spent, Unix milliseconds of the operator that granted it.
    pub deadline: i64,
    /// The last report that was applied.
    pub sequence: u64,
    /// What of it is known to be spent, by row.
    pub entries: Vec<Entry>,
}

impl Lease {
    /// What is known to be spent.
    pub(crate) fn spent(&self) -> Amount {
        self.entries.iter().map(|entry| entry.amount).sum()
    }

    /// What was charged and is not known to be spent.
    pub(crate) fn outstanding(&self) -> Amount {
        self.granted.left(self.spent())
    }
}

/// What was spent from a lease in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Index of the row in its book.
    pub row: usize,
    /// How much.
    pub amount: Amount,
}

/// Settled spend of one principal with one tool. Empty names: of all that had no room for rows of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    /// `<namespace>/<name>` of the principal.
    pub principal: String,
    /// The name of the server.
    pub server: String,
    /// The name of the tool.
    pub tool: String,
    /// How much, over all leases.
    pub amount: Amount,
}

/// A lease whose holder never made its final report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forfeit {
    /// The lease as it was last known.
    pub lease: Lease,
    /// When it was given up, Unix seconds.
    pub at: i64,
}

/// The book itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Book {
    /// The period it covers.
    pub span: Span,
    /// Settled spend.
    pub rows: Vec<Row>,
    /// Leases that may still be spent or reported on.
    pub leases: Vec<Lease>,
    /// Leases that were given up.
    pub forfeits: Vec<Forfeit>,
    /// What older forfeited leases come to.
    pub folded: Amount,
}

impl Book {
    /// An empty book for a period.
    pub(crate) const fn new(span: Span) -> Self {
        Self {
            span,
            rows: Vec::new(),
            leases: Vec::new(),
            forfeits: Vec::new(),
            folded: Amount { micros: 0, calls: 0 },
        }
    }

    /// What is known to be spent.
    pub(crate) fn settled(&self) -> Amount {
        self.rows.iter().map(|row| row.amount).sum()
    }

    /// What is charged and may still be spent.
    pub(crate) fn leased(&self) -> Amount {
        self.leases.iter().map(Lease::outstanding).sum()
    }

    /// What was charged and may or may not have been spent.
    pub(crate) fn forfeited(&self) -> Amount {
        self.forfeits.iter().map(|forfeit| forfeit.lease.outstanding()).sum::<Amount>().plus(self.folded)
    }

    /// All that is charged against the limit.
    pub(crate) fn charged(&self) -> Amount {
        self.settled().plus(self.leased()).plus(self.forfeited())
    }

    /// Gives up the leases that a condition picks; says whether there were any.
    ///
    /// A late final report still settles them, as long as they are kept one by one.
    pub(crate) fn forfeit(&mut self, now: i64, mut picked: impl FnMut(&Lease) -> bool) -> bool {
        let before = self.leases.len();
        let (gone, open) = std::mem::take(&mut self.leases).into_iter().partition(|lease| picked(lease));
        self.leases = open;
        let gone: Vec<Lease> = gone;
        self.forfeits.extend(
            gone.into_iter()
                .filter(|lease| lease.outstanding() != Amount::default())
                .map(|lease| Forfeit { lease, at: now }),
        );
        while self.forfeits.len() > MAX_FORFEITS {
            let oldest = self.forfeits.remove(0);
            self.folded = self.folded.plus(oldest.lease.outstanding());
        }
        self.leases.len() != before
    }

    /// Gives up the leases whose deadline is more than `grace` milliseconds ago.
    pub(crate) fn expire(&mut self, now_ms: i64, grace: i64) -> bool {
        self.forfeit(now_ms.div_euclid(1000), |lease| lease.deadline.saturating_add(grace) <= now_ms)
    }
}
