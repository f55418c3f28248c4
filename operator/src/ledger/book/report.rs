//! Applies the reports of holders to the book. Reports contain totals, so a repeated or late report changes nothing.

use super::{Amount, Book, Entry, Holder, Lease, MAX_ENTRIES, MAX_ROWS, Row};

/// A report on one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Process that reports.
    pub holder: Holder,
    /// Identifier of the lease.
    pub lease: String,
    /// Sequence number, increasing with each report on the lease.
    pub sequence: u64,
    /// Total that was spent from the lease so far.
    pub total: Amount,
    /// Whether this is the final report: the holder will spend no more.
    pub last: bool,
    /// The total, by principal and tool.
    pub items: Vec<ReportItem>,
}

/// Total that one principal has spent from a lease with one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReportItem {
    /// `<namespace>/<name>` of the principal.
    pub principal: String,
    /// Name of the server.
    pub server: String,
    /// Name of the tool.
    pub tool: String,
    /// Amount that was spent.
    pub amount: Amount,
}

/// Effect of an accepted report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportOutcome {
    /// The report changed the book.
    Applied,
    /// The book already had the report or a later one, or the lease has ended.
    Unchanged,
}

/// Why a report was not applied. Its lease is forfeited in the end, unless a valid report follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportRejection {
    /// Another process holds the lease.
    #[error("the lease belongs to another holder")]
    NotHolder,
    /// The report exceeds the granted amount.
    #[error("more was reported than granted")]
    Overspent,
    /// The items of the report exceed its total.
    #[error("the items of the report exceed its total")]
    ItemsExceedTotal,
    /// The report is lower than an earlier one.
    #[error("less was reported than before")]
    Decreased,
}

impl Book {
    /// Applies a report to an open or forfeited lease. A report on a lease that has ended changes nothing.
    pub(crate) fn report(&mut self, report: &Report) -> Result<ReportOutcome, ReportRejection> {
        if let Some(index) = self.leases.iter().position(|lease| lease.id == report.lease) {
            let mut lease = self.leases[index].clone();
            let result = self.apply(&mut lease, report)?;
            if report.last && result == ReportOutcome::Applied {
                self.leases.remove(index);
            } else {
                self.leases[index] = lease;
            }
            return Ok(result);
        }
        if let Some(index) = self.forfeits.iter().position(|forfeit| forfeit.lease.id == report.lease) {
            let mut lease = self.forfeits[index].lease.clone();
            let result = self.apply(&mut lease, report)?;
            if lease.outstanding() == Amount::default() || (report.last && result == ReportOutcome::Applied) {
                self.forfeits.remove(index);
            } else {
                self.forfeits[index].lease = lease;
            }
            return Ok(result);
        }
        Ok(ReportOutcome::Unchanged)
    }

    /// Updates a lease and the rows to match a report. Changes nothing if the report is rejected.
    fn apply(&mut self, lease: &mut Lease, report: &Report) -> Result<ReportOutcome, ReportRejection> {
        if lease.holder != report.holder {
            return Err(ReportRejection::NotHolder);
        }
        if report.sequence <= lease.sequence {
            return Ok(ReportOutcome::Unchanged);
        }
        if !lease.granted.allows(report.total) {
            return Err(ReportRejection::Overspent);
        }
        let itemized: Amount = report.items.iter().map(|item| item.amount).sum();
        if !report.total.covers(itemized) {
            return Err(ReportRejection::ItemsExceedTotal);
        }
        let mut rows = self.rows.clone();
        let room = MAX_ENTRIES.saturating_sub(self.entries_except(&lease.id));
        // Once a lease has spend in the shared row, its new items go there too. Otherwise spend could move from the
        // shared row to another row, and no row may ever decrease.
        let uses_shared = lease.entries.iter().any(|entry| rows[entry.row].principal.is_empty());
        let mut entries: Vec<Entry> = Vec::new();
        for item in &report.items {
            let row = match row_of(&mut rows, &item.principal, &item.server, &item.tool) {
                Some(row) if lease.entries.iter().any(|entry| entry.row == row) => row,
                Some(row) if !uses_shared && entries.len() < room => row,
                _ => shared_row(&mut rows),
            };
            add(&mut entries, row, item.amount);
        }
        let unitemized = report.total.saturating_sub(itemized);
        if unitemized != Amount::default() {
            let row = shared_row(&mut rows);
            add(&mut entries, row, unitemized);
        }
        for old in &lease.entries {
            if !entries.iter().any(|new| new.row == old.row && new.amount.covers(old.amount)) {
                return Err(ReportRejection::Decreased);
            }
        }
        for new in &entries {
            let old = lease.entries.iter().find(|old| old.row == new.row).map_or(Amount::default(), |old| old.amount);
            rows[new.row].amount = rows[new.row].amount.saturating_add(new.amount.saturating_sub(old));
        }
        self.rows = rows;
        lease.entries = entries;
        lease.sequence = report.sequence;
        Ok(ReportOutcome::Applied)
    }

    /// Counts the entries of all leases except one.
    fn entries_except(&self, id: &str) -> usize {
        let leases = self.leases.iter().chain(self.forfeits.iter().map(|forfeit| &forfeit.lease));
        leases.filter(|lease| lease.id != id).map(|lease| lease.entries.len()).sum()
    }
}

/// Returns the index of the row with these names. Adds the row if there is room and the names are no longer than
/// Kubernetes and MCP allow; otherwise returns none.
pub(super) fn row_of(rows: &mut Vec<Row>, principal: &str, server: &str, tool: &str) -> Option<usize> {
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

/// Returns the index of the shared row, which has empty names. Adds the row if it does not exist.
pub(super) fn shared_row(rows: &mut Vec<Row>) -> usize {
    let found = rows.iter().position(|row| row.principal.is_empty());
    found.unwrap_or_else(|| {
        let empty = String::new;
        rows.push(Row { principal: empty(), server: empty(), tool: empty(), amount: Amount::default() });
        rows.len() - 1
    })
}

fn add(entries: &mut Vec<Entry>, row: usize, amount: Amount) {
    match entries.iter_mut().find(|entry| entry.row == row) {
        Some(entry) => entry.amount = entry.amount.saturating_add(amount),
        None => entries.push(Entry { row, amount }),
    }
}
