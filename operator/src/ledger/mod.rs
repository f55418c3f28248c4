//! The ledger: how much of each budget is spent, leased and forfeited in each period.
//!
//! Start at [`book`], the account of one budget in one period. It, [`period`] and the commit protocol are pure, and in a
//! crate of their own. [`record`] converts a book to and from an `MCPLedger`, and [`store`] reads and writes those; [`files`] keeps them in a folder instead. [`service`] holds the books in memory. The control
//! server calls [`leases`], [`reports`] and [`forfeits`]; [`closing`] ends periods; [`restore`] takes over books from a backup; status and metrics read [`view`].

mod any_store;
mod change;
mod closing;
mod error;
mod files;
mod forfeits;
mod leases;
mod load;
pub(crate) mod record;
mod reports;
mod restore;
mod service;
mod slot;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
pub(crate) use mcp_fleet_ledger::{book, period};
pub(crate) use reports::period_start;

use crate::retry::{jittered, until_success};

pub(crate) use any_store::AnyStore;
pub(crate) use error::LedgerError;
pub(crate) use files::FileStore;
pub(crate) use restore::Restored;
pub(crate) use service::Ledger;
pub(crate) use slot::LeaseOutcome;
pub(crate) use store::Store;

/// How often pending reports are written.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// How often overdue leases are forfeited.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the versions of all books are compared with those in memory. Only a former leader that writes late makes a
/// difference, and a write or a refusal notices that at once.
const RELOAD_INTERVAL: Duration = Duration::from_mins(5);

/// How often ended periods are closed.
const CLOSE_INTERVAL: Duration = Duration::from_mins(1);
/// How often closed periods are removed whose retention has ended.
const REMOVE_INTERVAL: Duration = Duration::from_hours(1);

/// Opens the ledger: reads every book, and retries until that succeeds.
pub(crate) async fn open(store: AnyStore) -> Arc<Ledger<AnyStore>> {
    let ledger = Arc::new(Ledger::new(store, || Timestamp::now().as_millisecond(), reports::BATCH_INTERVAL));
    until_success("read the ledger", async || ledger.load().await).await;
    ledger
}

/// Maintains the ledger: writes pending reports, forfeits overdue leases, compares the books in memory with the store, and
/// closes and removes ended periods. Never returns.
pub(crate) async fn maintain(ledger: &Ledger<AnyStore>) {
    let flush = async {
        loop {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            ledger.flush().await;
        }
    };
    let expire = async {
        loop {
            tokio::time::sleep(jittered(EXPIRE_INTERVAL)).await;
            ledger.expire().await;
        }
    };
    let load = async {
        loop {
            tokio::time::sleep(jittered(RELOAD_INTERVAL)).await;
            if let Err(error) = ledger.load().await {
                tracing::warn!(error = crate::error::chain(&error), "failed to reread the ledger");
            }
        }
    };
    let close = async {
        loop {
            tokio::time::sleep(jittered(CLOSE_INTERVAL)).await;
            ledger.close_ended().await;
        }
    };
    let remove = async {
        loop {
            tokio::time::sleep(jittered(REMOVE_INTERVAL)).await;
            if let Err(error) = ledger.remove_closed().await {
                tracing::warn!(error = crate::error::chain(&error), "failed to remove closed periods from the ledger");
            }
        }
    };
    tokio::join!(flush, expire, load, close, remove);
}
