//! A store of any kind: which one it is, only the process that opens the ledger knows.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::book::Book;
use super::record::Owner;
use super::store::{BookKey, Page, Selection, Store, StoreError, StoredBook};

/// A store of any kind.
#[derive(Clone)]
pub struct AnyStore(Arc<dyn DynStore>);

impl AnyStore {
    /// Wraps a store.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStore").finish_non_exhaustive()
    }
}

/// [`Store`] with futures in boxes. An allocation is nothing beside an access to a store.
trait DynStore: Send + Sync {
    fn read<'a>(&'a self, key: &'a BookKey) -> BoxFuture<'a, Result<Option<StoredBook>, StoreError>>;
    fn write<'a>(
        &'a self,
        key: &'a BookKey,
        owner: &'a Owner,
        book: &'a Book,
        version: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, StoreError>>;
    fn list(&self, selection: Selection, page: Option<String>) -> BoxFuture<'_, Result<Page, StoreError>>;
    fn remove<'a>(&'a self, key: &'a BookKey, version: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;
}

impl<S: Store> DynStore for S {
    fn read<'a>(&'a self, key: &'a BookKey) -> BoxFuture<'a, Result<Option<StoredBook>, StoreError>> {
        Box::pin(Store::read(self, key))
    }

    fn write<'a>(
        &'a self,
        key: &'a BookKey,
        owner: &'a Owner,
        book: &'a Book,
        version: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        Box::pin(Store::write(self, key, owner, book, version))
    }

    fn list(&self, selection: Selection, page: Option<String>) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(Store::list(self, selection, page))
    }

    fn remove<'a>(&'a self, key: &'a BookKey, version: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(Store::remove(self, key, version))
    }
}

impl Store for AnyStore {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        self.0.read(key).await
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        self.0.write(key, owner, book, version).await
    }

    async fn list(&self, selection: Selection, page: Option<String>) -> Result<Page, StoreError> {
        self.0.list(selection, page).await
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        self.0.remove(key, version).await
    }
}
