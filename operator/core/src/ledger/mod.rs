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
pub mod record;
mod reports;
mod restore;
mod service;
mod slot;
pub mod store;
#[cfg(test)]
pub mod tests;
mod view;

use std::time::Duration;

pub use mcp_fleet_ledger::{book, period};

use crate::retry::jittered;

pub use any_store::AnyStore;
pub use error::LedgerError;
pub use files::FileStore;
pub use reports::period_start;
pub use restore::Restored;
pub use service::Ledger;
pub use slot::LeaseOutcome;
pub use store::Store;

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

/// Maintains the ledger: writes pending reports, forfeits overdue leases, compares the books in memory with the store, and
/// closes and removes ended periods. Never returns.
pub async fn maintain(ledger: &Ledger<AnyStore>) {
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
