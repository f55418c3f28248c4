//! Storage of books in a folder, for a fleet on one machine: one file per book, which holds the `MCPLedger` as the API
//! server would.
//!
//! A book is replaced by renaming a new file over it after that file is on disk, so a crash leaves the book before or after
//! the write. Only one process may use the folder; its owner sees to that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::ResourceExt as _;
use mcp_fleet_crds::MCPLedger;
use parking_lot::Mutex;

use super::book::Book;
use super::record::Owner;
use super::store::{BookKey, Listed, Page, Selection, Store, StoreError, StoredBook, listed, object, parse};
use crate::private_files;

const EXTENSION: &str = "json";

/// Stores books as files of one folder.
#[derive(Clone, Debug)]
pub struct FileStore {
    folder: Arc<Mutex<PathBuf>>,
}

impl FileStore {
    /// Opens the folder, and creates it if it does not exist.
    pub fn open(folder: &Path) -> io::Result<Self> {
        private_files::create_folder(folder)?;
        Ok(Self { folder: Arc::new(Mutex::new(folder.to_owned())) })
    }

    /// Runs an operation on the folder, one at a time, where it may block.
    async fn with_folder<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(&self.folder);
        let done = tokio::task::spawn_blocking(move || operation(&folder.lock())).await;
        done.map_err(|error| StoreError::Unavailable(error.into()))?
    }
}

fn unavailable(error: io::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}

fn path(folder: &Path, key: &BookKey) -> Option<PathBuf> {
    Some(folder.join(key.name()?).with_extension(EXTENSION))
}

/// Reads the object in a file; none if the file does not exist.
fn read(path: &Path) -> Result<Option<MCPLedger>, StoreError> {
    let bytes = private_files::read(path).map_err(unavailable)?;
    let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    parsed.map_err(|error| StoreError::Unreadable(error.into()))
}

/// Returns the version that follows.
fn next(version: Option<&str>) -> String {
    version.and_then(|version| version.parse::<u64>().ok()).unwrap_or_default().saturating_add(1).to_string()
}

impl Store for FileStore {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        let key = key.clone();
        self.with_folder(move |folder| {
            let Some(path) = path(folder, &key) else { return Ok(None) };
            read(&path)?.as_ref().map(parse).transpose()
        })
        .await
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        let (key, version) = (key.clone(), version.map(str::to_owned));
        let mut object = object(&key, owner, book, Some(&next(version.as_deref())))?;
        self.with_folder(move |folder| {
            let Some(path) = path(folder, &key) else { return Err(StoreError::Conflict) };
            if read(&path)?.and_then(|found| found.resource_version()) != version {
                return Err(StoreError::Conflict);
            }
            let written = object.metadata.resource_version.clone().unwrap_or_default();
            object.metadata.managed_fields = None;
            let bytes = serde_json::to_vec(&object).map_err(|error| StoreError::Unavailable(error.into()))?;
            private_files::replace(&path, &bytes).map_err(unavailable)?;
            Ok(written)
        })
        .await
    }

    async fn list(&self, selection: Selection, _page: Option<String>) -> Result<Page, StoreError> {
        self.with_folder(move |folder| {
            let mut books: Vec<Listed> = Vec::new();
            for entry in fs::read_dir(folder).map_err(unavailable)? {
                let path = entry.map_err(unavailable)?.path();
                if path.extension().is_none_or(|extension| extension != EXTENSION) {
                    continue;
                }
                match read(&path) {
                    Ok(found) => books.extend(found.as_ref().and_then(listed)),
                    // One invalid file must not block the ledger.
                    Err(StoreError::Unreadable(error)) => {
                        tracing::error!(file = %path.display(), error = &*error, "skipped a file that is not a ledger");
                    }
                    Err(error) => return Err(error),
                }
            }
            books.retain(|book| book.retained_until.is_some() == (selection == Selection::Closed));
            Ok(Page { books, next: None })
        })
        .await
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        let (key, version) = (key.clone(), version.to_owned());
        self.with_folder(move |folder| {
            let Some(path) = path(folder, &key) else { return Ok(()) };
            let Some(found) = read(&path)? else { return Ok(()) };
            if found.resource_version().as_ref() != Some(&version) {
                return Err(StoreError::Conflict);
            }
            fs::remove_file(&path).map_err(unavailable)
        })
        .await
    }
}
