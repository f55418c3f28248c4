//! Applying what a holder says it has spent: totals, so that a report that comes twice or late changes nothing.

use super::{Amount, Book, Entry, Holder, Lease, MAX_ENTRIES, MAX_ROWS, Row};

/// A report on one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Who reports.
    pub holder: Holder,
    /// The lease.
    pub lease: String,
    /// Counts up within holder and lease.
    pub sequence: u64,
    /// What was spent of the lease so far.
    pub total: Amount,
    /// The holder will spend no more.
    pub last: bool,
    /// Who spent it.
    pub items: Vec<Item>,
}

/// What one principal spent of a lease with one tool, so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// `<namespace>/<name>` of the principal.
    pub principal: String,
    /// The name of the server.
    pub server: String,
    /// The name of the tool.
    pub tool: String,
    /// How much.
    pub amount: Amount,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reported {
    /// It stands in the book.
    Applied,
    /// The book knew it already.
    Known,
}

/// A report that cannot be true. It is not applied: its lease ends up forfeited, unless a better report comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    /// The lease belongs to another process.
    #[error("the lease belongs to another holder")]
    NotHolder,
    /// More than was granted.
    #[error("more was reported than granted")]
    Overspent,
    /// The items come to more than the total.
    #[error("the items of the report exceed its total")]
    Items,
    /// Less than in an earlier report.
    #[error("less was reported than before")]
    Regressed,
}

impl Book {
    /// Applies a report to an open or a forfeited lease. A lease that is neither has ended: nothing is left to say.
    pub(crate) fn report(&mut self, report: &Report) -> Result<Reported, ReportError> {
        if let Some(at) = self.leases.iter().position(|lease| lease.id == report.lease) {
            let mut lease = self.leases[at].clone();
            let result = self.apply(&mut lease, report)?;
            if report.last && result == Reported::Applied {
                self.leases.remove(at);
            } else {
                self.leases[at] = lease;
            }
            return Ok(result);
        }
        if let Some(at) = self.forfeits.iter().position(|forfeit| forfeit.lease.id == report.lease) {
            let mut lease = self.forfeits[at].lease.clone();
            let result = self.apply(&mut lease, report)?;
            if lease.outstanding() == Amount::default() || (report.last && result == Reported::Applied) {
                self.forfeits.remove(at);
            } else {
                self.forfeits[at].lease = lease;
            }
            return Ok(result);
        }
        Ok(Reported::Known)
    }

    /// Brings a lease and the rows up to a report. Changes nothing when it fails.
    fn apply(&mut self, lease: &mut Lease, report: &Report) -> Result<Reported, ReportError> {
        if lease.holder != report.holder {
            return Err(ReportError::NotHolder);
        }
        if report.sequence <= lease.sequence {
            return Ok(Reported::Known);
        }
        if !lease.granted.admits(report.total) {
            return Err(ReportError::Overspent);
        }
        let named: Amount = report.items.iter().map(|item| item.amount).sum();
        if !report.total.covers(named) {
            return Err(ReportError::Items);
        }
        let mut rows = self.rows.clone();
        let room = MAX_ENTRIES.saturating_sub(self.entries_of_others(&lease.id));
        // Once a lease has spend among the others, what is new to it goes there too: no row may ever go down.
        let folding = lease.entries.iter().any(|entry| rows[entry.row].principal.is_empty());
        let mut entries: Vec<Entry> = Vec::new();
        for item in &report.items {
            let row = match row_of(&mut rows, &item.principal, &item.server, &item.tool) {
                Some(row) if lease.entries.iter().any(|entry| entry.row == row) => row,
                Some(row) if !folding && entries.len() < room => row,
                _ => others(&mut rows),
            };
            add(&mut entries, row, item.amount);
        }
        let rest = report.total.minus(named);
        if rest != Amount::default() {
            let row = others(&mut rows);
            add(&mut entries, row, rest);
        }
        for old in &lease.entries {
            if !entries.iter().any(|new| new.row == old.row && new.amount.covers(old.amount)) {
                return Err(ReportError::Regressed);
            }
        }
        for new in &entries {
            let old = lease.entries.iter().find(|old| old.row == new.row).map_or(Amount::default(), |old| old.amount);
            rows[new.row].amount = rows[new.row].amount.plus(new.amount.minus(old));
        }
        self.rows = rows;
        lease.entries = entries;
        lease.sequence = report.sequence;
        Ok(Reported::Applied)
    }

    fn entries_of_others(&self, id: &str) -> usize {
        let leases = self.leases.iter().chain(self.forfeits.iter().map(|forfeit| &forfeit.lease));
        leases.filter(|lease| lease.id != id).map(|lease| lease.entries.len()).sum()
    }
}

/// The row of these names, made if there is room and the names are of a size that Kubernetes and MCP allow.
fn row_of(rows: &mut Vec<Row>, principal: &str, server: &str, tool: &str) -> Option<usize> {
    if principal.is_empty() || principal.len() > 320 || server.len() > 63 || tool.len() > 128 {
        return None;
    }
    let found = rows.iter().position(|row| row.principal == principal && row.server == server && row.tool == tool);
    if found.is_some() || rows.len() >= MAX_ROWS {
        return found;
    }
    rows.push(Row {
        principal: principal.to_owned(),
        server: server.to_owned(),
        tool: tool.to_owned(),
        amount: Amount::default(),
    });
    Some(rows.len() - 1)
}

/// The row of those that have none of their own.
fn others(rows: &mut Vec<Row>) -> usize {
    let found = rows.iter().position(|row| row.principal.is_empty());
    found.unwrap_or_else(|| {
        let empty = String::new;
        rows.push(Row { principal: empty(), server: empty(), tool: empty(), amount: Amount::default() });
        rows.len() - 1
    })
}

fn add(entries: &mut Vec<Entry>, row: usize, amount: Amount) {
    match entries.iter_mut().find(|entry| entry.row == row) {
        Some(entry) => entry.amount = entry.amount.plus(amount),
        None => entries.push(Entry { row, amount }),
    }
}
