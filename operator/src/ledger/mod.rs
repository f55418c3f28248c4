//! The ledger: how much of each budget is spent, leased and forfeited in its period.
//!
//! [`book`] is the arithmetic and [`period`] the calendar, both pure.

pub mod book;
pub mod period;
