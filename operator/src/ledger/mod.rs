//! The ledger: how much of each budget is spent, leased and forfeited in its period.
//!
//! [`book`] is the arithmetic and [`period`] the calendar, both pure. [`record`] converts a book to a custom resource and
//! back, [`store`] reads and writes those. [`service`] holds all books; [`grants`], [`reports`] and [`forfeits`] are what the
//! control server calls, [`view`] is what status and metrics read.

pub(crate) mod book;
mod change;
mod forfeits;
mod grants;
pub(crate) mod period;
pub(crate) mod record;
mod reports;
mod service;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;

use crate::error;
use crate::retry::jittered;

pub(crate) use grants::Answer;
pub(crate) use service::{Ledger, LedgerError};
pub(crate) use store::ApiStore;

/// How often waiting reports are looked at.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// How often overdue leases are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// How often all books are read again.
const LOAD_EVERY: Duration = Duration::from_mins(1);

/// Opens the ledger: reads every book, however often that has to be tried.
pub(crate) async fn open(client: Client, namespace: &str) -> Arc<Ledger<ApiStore>> {
    let store = ApiStore::new(client, namespace);
    let ledger = Arc::new(Ledger::new(store, || Timestamp::now().as_millisecond(), reports::BATCH));
    while let Err(error) = ledger.load().await {
        tracing::warn!(error = error::chain(&error), "failed to read the ledger; trying again");
        tokio::time::sleep(jittered(Duration::from_secs(1))).await;
    }
    ledger
}

/// Keeps the ledger: writes waiting reports, gives up overdue leases. Never returns.
pub(crate) async fn keep(ledger: &Ledger<ApiStore>) {
    let flush = async {
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            ledger.flush().await;
        }
    };
    let expire = async {
        loop {
            tokio::time::sleep(jittered(EXPIRE_EVERY)).await;
            ledger.expire().await;
        }
    };
    let load = async {
        loop {
            tokio::time::sleep(jittered(LOAD_EVERY)).await;
            if let Err(error) = ledger.load().await {
                tracing::warn!(error = error::chain(&error), "failed to read the ledger again");
            }
        }
    };
    tokio::join!(flush, expire, load);
}
