//! The store of this process: the API server in a cluster, a folder on one machine.

use kube::Client;

use super::book::Book;
use super::files::FileStore;
use super::record::Owner;
use super::store::{ApiStore, BookKey, Page, Selection, Store, StoreError, StoredBook};

/// One of the stores.
#[derive(Clone, Debug)]
pub(crate) enum AnyStore {
    /// `MCPLedger` objects.
    Api(Box<ApiStore>),
    /// Files.
    Files(FileStore),
}

impl AnyStore {
    /// Returns the store of a cluster: `MCPLedger` objects in `namespace`, the operator's namespace.
    pub(crate) fn api(client: Client, namespace: &str) -> Self {
        Self::Api(Box::new(ApiStore::new(client, namespace)))
    }
}

impl Store for AnyStore {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        match self {
            Self::Api(store) => store.read(key).await,
            Self::Files(store) => store.read(key).await,
        }
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        match self {
            Self::Api(store) => store.write(key, owner, book, version).await,
            Self::Files(store) => store.write(key, owner, book, version).await,
        }
    }

    async fn list(&self, selection: Selection, page: Option<String>) -> Result<Page, StoreError> {
        match self {
            Self::Api(store) => store.list(selection, page).await,
            Self::Files(store) => store.list(selection, page).await,
        }
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        match self {
            Self::Api(store) => store.remove(key, version).await,
            Self::Files(store) => store.remove(key, version).await,
        }
    }
}
