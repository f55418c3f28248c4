//! The ledger: how much of each budget is spent, leased and forfeited in its period.
//!
//! [`book`] is the arithmetic and [`period`] the calendar, both pure; [`record`] is a book as a custom resource,
//! [`store`] where those are kept, and [`service`] what the control stream talks to.

pub mod book;
pub mod period;
pub mod record;
pub mod service;
pub mod store;
#[cfg(test)]
mod tests;

pub use service::{Answer, Ledger, LedgerError};
pub use store::ApiStore;
