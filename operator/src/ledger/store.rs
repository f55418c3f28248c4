//! Where books are kept: `MCPLedger` objects in the operator's namespace, written by compare-and-swap.

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

/// Which book: the budget's UID, and the start of the period in Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The budget's UID.
    pub budget_uid: String,
    /// The start of the period, Unix seconds.
    pub start: i64,
}

impl Key {
    /// The name of its object; none for a UID that Kubernetes would not give.
    fn name(&self) -> Option<String> {
        let form = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=64).contains(&self.budget_uid.len()) && self.budget_uid.bytes().all(form);
        let span = Span { start: self.start, end: self.start };
        fits.then(|| format!("{}-{}", self.budget_uid, span.compact()))
    }
}

/// A book as it was read or written last, and its version in the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// Whose it is.
    pub owner: Owner,
    /// The book.
    pub book: Book,
    /// The version: a write has to name it.
    pub version: String,
}

/// Why a book could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Somebody else wrote it in between.
    #[error("failed to write a ledger: it was changed by another writer")]
    Conflict,
    /// The store could not be reached, or refused; a write may have happened all the same.
    #[error("failed to reach the store of ledgers")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What stands there is not a book.
    #[error("failed to understand a ledger")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A store with compare-and-swap. Reads are consistent: they see every write that was answered before.
pub(crate) trait Store: Send + Sync + 'static {
    /// The book, if there is one.
    fn read(&self, key: &Key) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;
    /// Writes a book over `version`, or makes it where there is none; answers the new version.
    fn write(
        &self,
        key: &Key,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> impl Future<Output = Result<String, StoreError>> + Send;
    /// Every book.
    fn list(&self) -> impl Future<Output = Result<Vec<(Key, Stored)>, StoreError>> + Send;
    /// Removes a book if it still has that version.
    fn remove(&self, key: &Key, version: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The API server as a store.
#[derive(Clone, Debug)]
pub(crate) struct ApiStore {
    api: Api<MCPLedger>,
}

impl ApiStore {
    /// Keeps books in `namespace`, the operator's.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }
}

fn error(error: kube::Error) -> StoreError {
    match &error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict,
        _ => StoreError::Unavailable(error.into()),
    }
}

fn stored(object: &MCPLedger) -> Result<Stored, StoreError> {
    let (owner, book) = from_record(&object.spec).map_err(|error| StoreError::Unreadable(error.into()))?;
    Ok(Stored { owner, book, version: object.resource_version().unwrap_or_default() })
}

impl Store for ApiStore {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        let Some(name) = key.name() else { return Ok(None) };
        with_timeout(self.api.get_opt(&name)).await.map_err(error)?.as_ref().map(stored).transpose()
    }

    async fn write(&self, key: &Key, owner: &Owner, book: &Book, version: Option<&str>) -> Result<String, StoreError> {
        let name = key.name().ok_or_else(|| StoreError::Unreadable("not the UID of a budget".into()))?;
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
        Ok(written.map_err(error)?.resource_version().unwrap_or_default())
    }

    async fn list(&self) -> Result<Vec<(Key, Stored)>, StoreError> {
        let objects = self.api.list(&ListParams::default()).await.map_err(error)?;
        let mut books = Vec::new();
        for object in &objects.items {
            match stored(object) {
                Ok(stored) => {
                    let key = Key { budget_uid: stored.owner.budget_uid.clone(), start: stored.book.span.start };
                    books.push((key, stored));
                }
                // One bad record must not take the ledger of everybody away; its own budget is refused.
                Err(error) => {
                    tracing::error!(
                        ledger = object.name_any(),
                        error = &error as &dyn std::error::Error,
                        "passed over a ledger"
                    );
                }
            }
        }
        Ok(books)
    }

    async fn remove(&self, key: &Key, version: &str) -> Result<(), StoreError> {
        let Some(name) = key.name() else { return Ok(()) };
        let only = Preconditions { resource_version: Some(version.to_owned()), uid: None };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match with_timeout(self.api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(other) => Err(error(other)),
        }
    }
}
