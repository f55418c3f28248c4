//! Applies the reports of holders to the book. Reports contain totals, so a repeated or late report changes nothing.

use super::{Amount, Book, Entry, Holder, Lease, Row};

/// A report on one lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReportItem {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportOutcome {
    /// The report changed the book.
    Applied,
    /// The book already had the report or a later one, or the lease has ended.
    Unchanged,
}

/// Why a report was not applied. Its lease is forfeited in the end, unless a valid report follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReportRejection {
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
    pub fn report(&mut self, report: &Report) -> Result<ReportOutcome, ReportRejection> {
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
        let rows_before = self.rows.len();
        let entries = self.entries(lease, report, report.total.saturating_sub(itemized));
        let decreased = |old: &Entry| !entries.iter().any(|new| new.row == old.row && new.amount.covers(old.amount));
        if lease.entries.iter().any(decreased) {
            // Rows that were added for the report are empty.
            self.rows.truncate(rows_before);
            return Err(ReportRejection::Decreased);
        }
        for new in &entries {
            let old = lease.entries.iter().find(|old| old.row == new.row).map_or(Amount::default(), |old| old.amount);
            self.add_to_row(new.row, new.amount.saturating_sub(old));
        }
        lease.entries = entries;
        lease.sequence = report.sequence;
        Ok(ReportOutcome::Applied)
    }

    /// Returns the entries that a report gives a lease. Adds rows without an amount where they are missing.
    fn entries(&mut self, lease: &Lease, report: &Report, unitemized: Amount) -> Vec<Entry> {
        let room = self.capacity.entries.saturating_sub(self.entries_except(&lease.id));
        // Once a lease has spend in the shared row, its new items go there too. Otherwise spend could move from the
        // shared row to another row, and no row may ever decrease.
        let uses_shared = lease.entries.iter().any(|entry| self.rows[entry.row].principal.is_empty());
        let mut entries: Vec<Entry> = Vec::new();
        for item in &report.items {
            let row = match self.row_of(&item.principal, &item.server, &item.tool) {
                Some(row) if lease.entries.iter().any(|entry| entry.row == row) => row,
                Some(row) if !uses_shared && entries.len() < room => row,
                _ => self.shared_row(),
            };
            add(&mut entries, row, item.amount);
        }
        if unitemized != Amount::default() {
            let row = self.shared_row();
            add(&mut entries, row, unitemized);
        }
        entries
    }

    /// Counts the entries of all leases except one.
    fn entries_except(&self, id: &str) -> usize {
        let leases = self.leases.iter().chain(self.forfeits.iter().map(|forfeit| &forfeit.lease));
        leases.filter(|lease| lease.id != id).map(|lease| lease.entries.len()).sum()
    }

    /// Returns the index of the row with these names. Adds the row if there is room for it; otherwise returns none.
    pub(super) fn row_of(&mut self, principal: &str, server: &str, tool: &str) -> Option<usize> {
        let has_names = |row: &Row| row.principal == principal && row.server == server && row.tool == tool;
        let found = self.rows.iter().position(has_names);
        if found.is_some() || principal.is_empty() || !self.has_room(principal, server, tool) {
            return found.filter(|_| !principal.is_empty());
        }
        self.rows.push(Row {
            principal: principal.to_owned(),
            server: server.to_owned(),
            tool: tool.to_owned(),
            amount: Amount::default(),
        });
        Some(self.rows.len() - 1)
    }

    /// Returns whether a row with these names may be added: they have the form that the API admits, and so are stored
    /// as they are, without escapes.
    fn has_room(&self, principal: &str, server: &str, tool: &str) -> bool {
        let is_plain = |name: &str, max: usize| {
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-' | b'$' | b' ');
            name.len() <= max && name.bytes().all(allowed)
        };
        let length = |row: &Row| row.principal.len() + row.server.len() + row.tool.len();
        is_plain(principal, 320)
            && is_plain(server, 63)
            && is_plain(tool, 128)
            && self.rows.len() < self.capacity.rows
            && self.rows.iter().map(length).sum::<usize>() + principal.len() + server.len() + tool.len()
                <= self.capacity.name_bytes
    }

    /// Returns the index of the shared row, which has empty names. Adds the row if it does not exist.
    pub(super) fn shared_row(&mut self) -> usize {
        let found = self.rows.iter().position(|row| row.principal.is_empty());
        found.unwrap_or_else(|| {
            let empty = String::new;
            self.rows.push(Row { principal: empty(), server: empty(), tool: empty(), amount: Amount::default() });
            self.rows.len() - 1
        })
    }
}

fn add(entries: &mut Vec<Entry>, row: usize, amount: Amount) {
    match entries.iter_mut().find(|entry| entry.row == row) {
        Some(entry) => entry.amount = entry.amount.saturating_add(amount),
        None => entries.push(Entry { row, amount }),
    }
}
