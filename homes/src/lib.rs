//! The protocol by which each principal of a tenant has one home among the tenant's gateways: no I/O, no clock.
//!
//! The home of a principal is the only gateway that admits its calls, so that its limits are exact. [`view`] says which
//! gateway that is. [`leader`] is the operator's side, which decides which gateways there are; [`gateway`] is the
//! gateway's side, which decides whether it may admit a call now. They exchange the beats and answers of [`message`].
//! `tests/model` checks this code in every order in which messages can arrive, be lost and be repeated.

pub mod gateway;
pub mod leader;
pub mod message;
pub mod shares;
pub mod view;
