//! Storage of books: `MCPLedger` objects in the operator's namespace, written by compare-and-swap.

use std::collections::BTreeMap;

use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_crds::MCPLedger;

use super::book::Book;
use super::period::Span;
use super::record::{Owner, from_record, to_record};
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::labels;
use crate::kubernetes::timeout::with_timeout;

/// Identifies a book: one budget in one period.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BookKey {
    /// UID of the budget.
    pub budget_uid: String,
    /// Start of the period, Unix seconds.
    pub start: i64,
}

impl BookKey {
    /// Returns the name of the `MCPLedger`; none if the UID does not have the form that Kubernetes gives UIDs.
    fn name(&self) -> Option<String> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=64).contains(&self.budget_uid.len()) && self.budget_uid.bytes().all(is_allowed);
        let span = Span { start: self.start, end: self.start };
        valid.then(|| format!("{}-{}", self.budget_uid, span.start_for_name()))
    }
}

/// A book as it was last read or written, with its version in the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredBook {
    /// Tenant and budget of the book.
    pub owner: Owner,
    pub book: Book,
    /// Version in the store; a write must name it.
    pub version: String,
}

/// Why a book could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Another writer changed the book since it was read.
    #[error("failed to write a ledger: it was changed by another writer")]
    Conflict,
    /// The store could not be reached or refused the request. A write may still have happened.
    #[error("failed to access the ledger store")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stored object is not a valid book.
    #[error("failed to parse a ledger")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A store with compare-and-swap. Reads are consistent: they see every write that was acknowledged before.
pub(crate) trait Store: Send + Sync + 'static {
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
    /// Reads all books.
    fn list(&self) -> impl Future<Output = Result<Vec<(BookKey, StoredBook)>, StoreError>> + Send;
    /// Removes a book if it still has this version.
    fn remove(&self, key: &BookKey, version: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Stores books in the API server.
#[derive(Clone, Debug)]
pub(crate) struct ApiStore {
    api: Api<MCPLedger>,
}

impl ApiStore {
    /// Creates a store in `namespace`, the operator's namespace.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }
}

fn store_error(error: kube::Error) -> StoreError {
    match &error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict,
        _ => StoreError::Unavailable(error.into()),
    }
}

fn parse(object: &MCPLedger) -> Result<StoredBook, StoreError> {
    let (owner, book) = from_record(&object.spec).map_err(|error| StoreError::Unreadable(error.into()))?;
    Ok(StoredBook { owner, book, version: object.resource_version().unwrap_or_default() })
}

impl Store for ApiStore {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        let Some(name) = key.name() else { return Ok(None) };
        with_timeout(self.api.get_opt(&name)).await.map_err(store_error)?.as_ref().map(parse).transpose()
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        let name =
            key.name().ok_or_else(|| StoreError::Unreadable("the budget's UID is not valid in a name".into()))?;
        let mut labels: BTreeMap<String, String> = labels::of_tenant("ledger", &owner.tenant, &owner.tenant_uid);
        labels.insert("mcp-fleet.dev/budget-uid".into(), owner.budget_uid.clone());
        let mut object = MCPLedger::new(&name, to_record(owner, book));
        object.metadata = ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels),
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = match version {
            None => with_timeout(self.api.create(&params, &object)).await,
            Some(_) => with_timeout(self.api.replace(&name, &params, &object)).await,
        };
        Ok(written.map_err(store_error)?.resource_version().unwrap_or_default())
    }

    async fn list(&self) -> Result<Vec<(BookKey, StoredBook)>, StoreError> {
        let objects = self.api.list(&ListParams::default()).await.map_err(store_error)?;
        let mut books = Vec::new();
        for object in &objects.items {
            match parse(object) {
                Ok(stored) => {
                    let key = BookKey { budget_uid: stored.owner.budget_uid.clone(), start: stored.book.span.start };
                    books.push((key, stored));
                }
                // One invalid record must not block the ledger of all tenants; only its own budget grants no leases.
                Err(error) => {
                    tracing::error!(
                        ledger = object.name_any(),
                        error = &error as &dyn std::error::Error,
                        "skipped an invalid ledger"
                    );
                }
            }
        }
        Ok(books)
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        let Some(name) = key.name() else { return Ok(()) };
        let preconditions = Preconditions { resource_version: Some(version.to_owned()), uid: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match with_timeout(self.api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }
}
