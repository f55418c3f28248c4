//! The pure part of the ledger: no I/O, no clock, no Kubernetes.
//!
//! Start at [`book`], the account of one budget in one period; [`period`] says when periods begin and end, and [`commit`]
//! which reads and writes a change of a book takes. The operator does the I/O. `tests/model` checks this code, together
//! with the gateways' lease pools, in every order in which messages and writes can arrive, be lost and be repeated.

pub mod book;
pub mod commit;
pub mod period;
