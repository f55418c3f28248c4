//! A store that fails at random, before or after a write.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::*;

/// A store in memory that fails at random.
#[derive(Clone, Default)]
pub(super) struct Faulty {
    pub(super) memory: Memory,
    pub(super) faults: Arc<Mutex<Faults>>,
}

/// How often the store fails.
pub(super) struct Faults {
    pub(super) random: fastrand::Rng,
    /// Requests that fail, in percent.
    pub(super) percent: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Self { random: fastrand::Rng::with_seed(0), percent: 0 }
    }
}

impl Faulty {
    fn fails(&self) -> bool {
        let mut faults = self.faults.lock();
        let percent = faults.percent;
        faults.random.u32(..100) < percent
    }

    /// Fails at random.
    fn may_fail(&self) -> Result<(), StoreError> {
        if self.fails() { Err(StoreError::Unavailable("the store does not answer".into())) } else { Ok(()) }
    }
}

impl Store for Faulty {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        self.may_fail()?;
        self.memory.read(key).await
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        self.may_fail()?;
        let written = self.memory.write(key, owner, book, version).await?;
        self.may_fail()?;
        Ok(written)
    }

    async fn list(&self, selection: Selection, page: Option<String>) -> Result<Page, StoreError> {
        self.may_fail()?;
        self.memory.list(selection, page).await
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        self.may_fail()?;
        self.memory.remove(key, version).await
    }
}
