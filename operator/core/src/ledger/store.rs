//! Storage of books, written by compare-and-swap: [`Store`]. Every store keeps a book as an `MCPLedger`.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::core::ObjectMeta;
use mcp_fleet_crds::MCPLedger;

use super::book::Book;
use super::period::{Span, time_for_name, time_from_name};
use super::record::{Owner, from_record, to_record};
use crate::error::BoxError;
use crate::labels;

/// Label with the UID of the budget.
pub const BUDGET_UID: &str = "mcp-fleet.dev/budget-uid";
/// Label of closed books: the time at which the book may be removed.
pub const RETAINED_UNTIL: &str = "mcp-fleet.dev/retained-until";

/// Identifies a book: one budget in one period.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BookKey {
    /// UID of the budget.
    pub budget_uid: String,
    /// Start of the period, Unix seconds.
    pub start: i64,
}

/// Start of the book that collects the rows of all closed periods of a spend limit.
const CLOSED_PERIODS: i64 = 0;
/// How long a closed period is retained at least, in seconds; see [`retained_until`].
const MIN_RETENTION: i64 = 2 * 24 * 3600;

/// Returns until when a closed period is retained, in Unix seconds: two periods after its end, but at least two days.
pub(super) fn retained_until(span: Span) -> i64 {
    span.end.saturating_add(span.end.saturating_sub(span.start).saturating_mul(2).max(MIN_RETENTION))
}

impl BookKey {
    /// Returns the key of the book that collects the rows of all closed periods of a spend limit.
    pub(super) fn closed_periods(budget_uid: &str) -> Self {
        Self { budget_uid: budget_uid.to_owned(), start: CLOSED_PERIODS }
    }

    /// Returns whether this is the key of a book that collects the rows of all closed periods.
    pub(super) const fn is_closed_periods(&self) -> bool {
        self.start == CLOSED_PERIODS
    }

    /// Returns the name of the `MCPLedger`; none if the UID does not have the form that Kubernetes gives UIDs.
    pub fn name(&self) -> Option<String> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=64).contains(&self.budget_uid.len()) && self.budget_uid.bytes().all(is_allowed);
        valid.then(|| format!("{}-{}", self.budget_uid, time_for_name(self.start)))
    }

    /// Returns the key of the `MCPLedger` with this metadata; none if its name is not one that [`Self::name`] gives.
    fn from_metadata(object: &impl ResourceExt) -> Option<Self> {
        let budget_uid = object.labels().get(BUDGET_UID)?;
        let start = time_from_name(object.name_any().strip_prefix(budget_uid)?.strip_prefix('-')?)?;
        Some(Self { budget_uid: budget_uid.clone(), start })
    }
}

/// Selects the books to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Books that can change.
    Open,
    /// Books of closed periods, of which only totals are left.
    Closed,
}

/// What a list shows of a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: BookKey,
    /// Version in the store.
    pub version: String,
    /// Time at which a closed book may be removed, Unix seconds; none for an open one.
    pub retained_until: Option<i64>,
}

/// One page of a list of books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub books: Vec<Listed>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
}

/// A book as it was last read or written, with its version in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBook {
    /// Tenant and budget of the book.
    pub owner: Owner,
    pub book: Book,
    /// Version in the store; a write must name it.
    pub version: String,
}

/// Why a book could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer changed the book since it was read.
    #[error("failed to write a ledger: it was changed by another writer")]
    Conflict,
    /// The store could not be reached or refused the request. A write may still have happened.
    #[error("failed to access the ledger store")]
    Unavailable(#[source] BoxError),
    /// The stored object is not a valid book.
    #[error("failed to parse a ledger")]
    Unreadable(#[source] BoxError),
}

/// A store with compare-and-swap. Reads are consistent: they see every write that was acknowledged before.
pub trait Store: Send + Sync + 'static {
    /// Reads a book; none if it does not exist.
    fn read(&self, key: &BookKey) -> impl Future<Output = Result<Option<StoredBook>, StoreError>> + Send;
    /// Replaces `version` of a book, or creates the book if `version` is none. Returns the new version.
    fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> impl Future<Output = Result<String, StoreError>> + Send;
    /// Lists books, page by page. `page` is [`Page::next`] of the page before, and none for the first.
    fn list(&self, selection: Selection, page: Option<String>)
    -> impl Future<Output = Result<Page, StoreError>> + Send;
    /// Removes a book if it still has this version.
    fn remove(&self, key: &BookKey, version: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Returns the object of a book.
pub fn object(key: &BookKey, owner: &Owner, book: &Book, version: Option<&str>) -> Result<MCPLedger, StoreError> {
    let name = key.name().ok_or_else(|| StoreError::Unreadable("the budget's UID is not valid in a name".into()))?;
    let mut labels: BTreeMap<String, String> = labels::of_tenant("ledger", &owner.tenant, &owner.tenant_uid);
    labels.insert(BUDGET_UID.into(), owner.budget_uid.clone());
    if book.is_closed() {
        labels.insert(RETAINED_UNTIL.into(), time_for_name(retained_until(book.span)));
    }
    let mut object = MCPLedger::new(&name, to_record(owner, book));
    object.metadata = ObjectMeta {
        name: Some(name),
        labels: Some(labels),
        resource_version: version.map(str::to_owned),
        ..ObjectMeta::default()
    };
    Ok(object)
}

/// Reads the book of an object.
pub fn parse(object: &MCPLedger) -> Result<StoredBook, StoreError> {
    let (owner, book) = from_record(&object.spec).map_err(|error| StoreError::Unreadable(error.into()))?;
    Ok(StoredBook { owner, book, version: object.resource_version().unwrap_or_default() })
}

/// Returns what a list shows of a book; none if the name or a label of its object is invalid, because one invalid object
/// must not block the ledger of all tenants.
pub fn listed(object: &impl ResourceExt) -> Option<Listed> {
    let Some(key) = BookKey::from_metadata(object) else {
        tracing::error!(ledger = object.name_any(), "skipped a ledger whose name or label is invalid");
        return None;
    };
    let version = object.resource_version().unwrap_or_default();
    let retained_until = object.labels().get(RETAINED_UNTIL).and_then(|time| time_from_name(time));
    Some(Listed { key, version, retained_until })
}
