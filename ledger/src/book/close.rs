//! Closes a book after its period: removes what only open leases need, and keeps the totals.

use super::{Amount, Book, Row};

/// How long after its period a book stays open at least, in seconds. No lease outlives its period, but the clocks of two
/// leaders may differ.
const MIN_DELAY: i64 = 60;
/// How long after it was forfeited a lease may still be settled by a late report of its holder, in seconds. A gateway
/// reports within seconds after it reaches the leader again; after this time its money stays forfeited.
pub(super) const LATE_REPORT_TIME: i64 = 3600;

/// A closed period whose rows were added to the book of all closed periods. The two parts identify the rows, so that
/// they are added once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClosedPeriod {
    /// Start of the period, Unix seconds.
    pub start: i64,
    /// Settled spend of the period when its rows were added.
    pub settled: Amount,
}

impl Book {
    /// Returns whether the period can be closed: it has ended, and no lease may still be reported on.
    pub fn can_close(&self, now: i64) -> bool {
        !self.is_closed()
            && self.span.end.saturating_add(MIN_DELAY) <= now
            && self.leases.is_empty()
            && self.forfeits.iter().all(|forfeit| forfeit.at.saturating_add(LATE_REPORT_TIME) <= now)
    }

    /// Returns whether only totals are left.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some() && self.rows.is_empty() && self.leases.is_empty() && self.forfeits.is_empty()
    }

    /// Adds up the forfeited leases, so that no report can change the book any more. Returns whether there were any.
    pub fn seal(&mut self) -> bool {
        self.older_forfeits = self.forfeited();
        !std::mem::take(&mut self.forfeits).is_empty()
    }

    /// Closes the book: only the totals are left.
    pub fn close(&mut self) {
        self.seal();
        self.closed = Some(self.settled());
        self.rows.clear();
        self.row_total = Amount::default();
    }

    /// Returns what identifies the book's rows in the book of all closed periods.
    pub fn closed_period(&self) -> ClosedPeriod {
        ClosedPeriod { start: self.span.start, settled: self.settled() }
    }

    /// Adds a book for the same period that belonged to the same budget in another cluster. Nobody can report on its leases
    /// any more.
    pub fn absorb(&mut self, other: &Self) {
        for Row { principal, server, tool, amount } in &other.rows {
            let row = self.row_of(principal, server, tool).unwrap_or_else(|| self.shared_row());
            self.add_to_row(row, *amount);
        }
        if let Some(closed) = other.closed {
            self.closed = Some(self.closed.unwrap_or_default().saturating_add(closed));
        }
        self.older_forfeits = self.older_forfeits.saturating_add(other.forfeited()).saturating_add(other.leased());
        self.span.end = self.span.end.max(other.span.end);
    }

    /// Adds the rows of a period to this book, the book of all closed periods.
    ///
    /// If there are too many rows, those that were not used for the longest time are added to the shared row. The rows of
    /// this period always fit, so the sum of a row that is in use never decreases.
    pub fn add_closed(&mut self, period: &Self) {
        let older = std::mem::take(&mut self.rows);
        self.row_total = Amount::default();
        for Row { principal, server, tool, amount } in period.rows.iter().chain(&older) {
            let row = self.row_of(principal, server, tool).unwrap_or_else(|| self.shared_row());
            self.add_to_row(row, *amount);
        }
        self.older_forfeits = self.older_forfeits.saturating_add(period.forfeited());
        self.span.end = self.span.end.max(period.span.end);
        self.last_closed = Some(period.closed_period());
    }
}
