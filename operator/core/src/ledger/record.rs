//! Converts a book to an `MCPLedger` and back.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mcp_fleet_crds::MCPLedgerSpec;
use mcp_fleet_crds::ledger::{self, Grant, LedgerEntry, LedgerItem, LedgerLease, LedgerLoss, LedgerOwner, Tally};

use super::book::{Amount, Book, Capacity, ClosedPeriod, Entry, Forfeit, Holder, Lease, Limit, Row};
use super::period::Span;

/// Tenant and budget that a book belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the tenant.
    pub tenant: String,
    /// UID of the tenant.
    pub tenant_uid: String,
    /// Name of the budget.
    pub budget: String,
    /// UID of the budget.
    pub budget_uid: String,
}

impl Owner {
    /// Returns whether the budget is the tenant's spend limit. Its books itemise every call of the tenant once.
    pub fn is_spend_limit(&self) -> bool {
        self.budget_uid == self.tenant_uid
    }

    /// Returns the capacity of the budget's books.
    pub fn capacity(&self) -> Capacity {
        if self.is_spend_limit() { Capacity::SPEND_LIMIT } else { Capacity::BUDGET }
    }
}

/// A record that contradicts itself: a lease refers to spend that the book has no row for.
#[derive(Debug, thiserror::Error)]
#[error("lease {0} refers to spend that is not among the ledger's items")]
pub struct RecordError(String);

/// Converts a book to its record.
pub fn to_record(owner: &Owner, book: &Book) -> MCPLedgerSpec {
    let entry = |&Entry { row, amount: Amount { micros, calls } }: &Entry| LedgerEntry {
        item: u32::try_from(row).unwrap_or(u32::MAX),
        amount: micros,
        calls,
    };
    let lease = |lease: &Lease| LedgerLease {
        id: lease.id.clone(),
        pod_uid: lease.holder.pod_uid.clone(),
        epoch: lease.holder.epoch.clone(),
        request: lease.request,
        granted: Grant { amount: lease.granted.micros, calls: lease.granted.calls },
        sequence: lease.sequence,
        entries: lease.entries.iter().map(entry).collect(),
        expires_at: millis(lease.deadline),
    };
    MCPLedgerSpec {
        tenant: LedgerOwner { name: owner.tenant.clone(), uid: owner.tenant_uid.clone() },
        budget: LedgerOwner { name: owner.budget.clone(), uid: owner.budget_uid.clone() },
        start: seconds(book.span.start),
        end: seconds(book.span.end),
        settled: tally(book.settled()),
        forfeited: tally(book.forfeited()),
        leases: book.leases.iter().map(lease).collect(),
        items: book
            .rows
            .iter()
            .map(|row| item(&row.principal, &row.server, &row.tool, row.amount.micros, row.amount.calls))
            .collect(),
        losses: book
            .forfeits
            .iter()
            .map(|forfeit| LedgerLoss { lease: lease(&forfeit.lease), at: seconds(forfeit.at) })
            .collect(),
        older_losses: tally(book.older_forfeits),
        closed: book.closed.map(tally),
        last_closed: book.last_closed.map(|ClosedPeriod { start, settled }| ledger::ClosedPeriod {
            start: seconds(start),
            settled: tally(settled),
        }),
        restored_from: book.restored_from.clone(),
    }
}

/// Converts a record to its book.
pub fn from_record(record: &MCPLedgerSpec) -> Result<(Owner, Book), RecordError> {
    let owner = Owner {
        tenant: record.tenant.name.clone(),
        tenant_uid: record.tenant.uid.clone(),
        budget: record.budget.name.clone(),
        budget_uid: record.budget.uid.clone(),
    };
    let rows: Vec<Row> = record
        .items
        .iter()
        .map(|item| Row {
            principal: item.principal.clone(),
            server: item.server.clone(),
            tool: item.tool.clone(),
            amount: Amount { micros: item.amount, calls: item.calls },
        })
        .collect();
    let lease = |record: &LedgerLease| {
        let entry = |entry: &LedgerEntry| {
            let row = usize::try_from(entry.item).ok().filter(|row| *row < rows.len());
            let row = row.ok_or_else(|| RecordError(record.id.clone()))?;
            Ok(Entry { row, amount: Amount { micros: entry.amount, calls: entry.calls } })
        };
        Ok(Lease {
            id: record.id.clone(),
            holder: Holder { pod_uid: record.pod_uid.clone(), epoch: record.epoch.clone() },
            request: record.request,
            granted: Limit { micros: record.granted.amount, calls: record.granted.calls },
            deadline: record.expires_at.0.as_millisecond(),
            sequence: record.sequence,
            entries: record.entries.iter().map(entry).collect::<Result<_, _>>()?,
        })
    };
    let leases = record.leases.iter().map(lease).collect::<Result<_, _>>()?;
    let forfeits = record
        .losses
        .iter()
        .map(|loss| Ok(Forfeit { lease: lease(&loss.lease)?, at: loss.at.0.as_second() }))
        .collect::<Result<_, _>>()?;
    let book = Book {
        capacity: owner.capacity(),
        row_total: rows.iter().map(|row| row.amount).sum(),
        span: Span { start: record.start.0.as_second(), end: record.end.0.as_second() },
        rows,
        leases,
        forfeits,
        older_forfeits: amount(record.older_losses),
        closed: record.closed.map(amount),
        last_closed: record.last_closed.as_ref().map(|ledger::ClosedPeriod { start, settled }| ClosedPeriod {
            start: start.0.as_second(),
            settled: amount(*settled),
        }),
        restored_from: record.restored_from.clone(),
    };
    Ok((owner, book))
}

const fn amount(tally: Tally) -> Amount {
    Amount { micros: tally.amount, calls: tally.calls }
}

fn tally(amount: Amount) -> Tally {
    Tally { amount: amount.micros, calls: amount.calls }
}

fn item(principal: &str, server: &str, tool: &str, amount: u64, calls: u64) -> LedgerItem {
    LedgerItem { principal: principal.into(), server: server.into(), tool: tool.into(), amount, calls }
}

fn seconds(unix: i64) -> Time {
    Time(Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Converts a deadline to whole seconds, which is what Kubernetes stores. Rounds up, so that the stored deadline is
/// never earlier than the one that the holder was given.
fn millis(unix: i64) -> Time {
    seconds(unix.div_euclid(1000) + i64::from(unix.rem_euclid(1000) > 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::book::{LeaseRequest, MAX_FORFEITS, MAX_LEASES, Report, ReportItem};
    use super::*;

    #[test]
    fn a_book_survives_the_round_trip_through_its_record() {
        let owner =
            Owner { tenant: "acme".into(), tenant_uid: "u-1".into(), budget: "daily".into(), budget_uid: "b-1".into() };
        let span = Span { start: 1_794_960_000, end: 1_795_046_400 };
        let mut book = Book { capacity: owner.capacity(), ..Book::new(span) };
        let limit = Limit { micros: Some(1000), calls: None };
        for (number, id) in [(1, "l1"), (2, "l2"), (3, "l3")] {
            let holder = Holder { pod_uid: "pod".into(), epoch: id.into() };
            let amount = Amount { micros: 10, calls: 0 };
            let request = LeaseRequest { holder: holder.clone(), number, wanted: amount, minimum: amount };
            book.grant(&request, limit, id.into(), 1_795_000_000_000).unwrap();
            let amount = Amount { micros: number, calls: 1 };
            let string = |name: &str| name.to_owned();
            let item = ReportItem { principal: string("acme/a"), server: string("files"), tool: string(id), amount };
            let items = vec![item];
            let report = Report { holder, lease: id.into(), sequence: 7, total: amount, last: false, items };
            book.report(&report).unwrap();
        }
        book.forfeit(1_795_000_001, |lease| lease.id == "l2");
        book.older_forfeits = Amount { micros: 3, calls: 2 };
        book.closed = Some(Amount { micros: 5, calls: 4 });
        book.last_closed = Some(ClosedPeriod { start: 1_794_873_600, settled: Amount { micros: 9, calls: 8 } });
        book.restored_from = Some("b-0".into());
        let record = to_record(&owner, &book);
        let text = serde_json::to_string(&record).unwrap();
        let back = from_record(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(back, (owner, book));
    }

    /// Returns a book of this owner with as many leases, forfeits and items as gateways can cause.
    fn full_book(owner: &Owner, name_length: usize) -> Book {
        let span = Span { start: 1_794_960_000, end: 1_795_046_400 };
        let mut book = Book { capacity: owner.capacity(), ..Book::new(span) };
        for number in 0..MAX_FORFEITS + MAX_LEASES {
            // A gateway can choose any epoch of 128 bytes. These are stored as escapes of six bytes.
            let holder = Holder { pod_uid: format!("{number:0>36}"), epoch: "\u{1}".repeat(128) };
            let id = format!("1794960000.{number:0>26}");
            let wanted = Amount { micros: 1, calls: 1 };
            let request = LeaseRequest { holder: holder.clone(), number: u64::MAX, wanted, minimum: wanted };
            book.grant(&request, Limit::default(), id.clone(), 1_795_046_400_000).unwrap();
            let lease = book.leases.iter_mut().find(|lease| lease.id == id).unwrap();
            lease.granted = Limit { micros: Some(u64::MAX / 256), calls: Some(u64::MAX / 256) };
            let amount = Amount { micros: u64::from(u32::MAX), calls: u64::from(u32::MAX) };
            let item = |item: usize| ReportItem {
                principal: format!("acme/{number:0>3}-{item:0>name_length$}"),
                server: "files".into(),
                // Two of these cannot be stored as they are.
                tool: format!("tool-{item:0>2}{}", if item < 38 { "" } else { "\u{1}" }),
                amount,
            };
            let items: Vec<ReportItem> = (0..40).map(item).collect();
            let total = items.iter().map(|item| item.amount).sum();
            let report = Report { holder, lease: id, sequence: u64::MAX, total, last: false, items };
            book.report(&report).unwrap();
            if number < MAX_FORFEITS {
                book.forfeit(1_795_000_000, |_| true);
            }
        }
        assert_eq!((book.leases.len(), book.forfeits.len()), (MAX_LEASES, MAX_FORFEITS));
        book
    }

    #[test]
    fn a_full_book_is_far_below_what_etcd_accepts() {
        let budget = Owner {
            tenant: "a".repeat(52),
            tenant_uid: "u".repeat(36),
            budget: "b".repeat(52),
            budget_uid: "b".repeat(36),
        };
        let spend_limit = Owner { budget_uid: budget.tenant_uid.clone(), ..budget.clone() };
        for (owner, most) in [(&spend_limit, 384 * 1024), (&budget, 192 * 1024)] {
            for name_length in [2, 300] {
                let book = full_book(owner, name_length);
                let size = serde_json::to_vec(&to_record(owner, &book)).unwrap().len();
                assert!(size < most, "{size} bytes with {} rows", book.rows.len());
                // What has no row of its own is in the shared row: nothing is lost.
                let calls = 40 * u64::from(u32::MAX) * u64::try_from(MAX_LEASES + MAX_FORFEITS).unwrap();
                assert_eq!(book.settled().calls, calls);
            }
        }
    }

    #[test]
    fn a_stored_deadline_is_never_earlier_than_the_granted_one() {
        assert_eq!(millis(1_001).0.as_millisecond(), 2_000);
        assert_eq!(millis(1_000).0.as_millisecond(), 1_000);
    }
}
