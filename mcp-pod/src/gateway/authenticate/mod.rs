//! Who calls: a bearer token in the headers, checked before a byte of the body is read.
//!
//! A signature is verified once and remembered ([`trust`]); whether the token is still good (expiry, revocation,
//! suspension) is asked of the policy in force on every call ([`check`]). [`flood`] bounds what callers without a
//! good token can make the gateway do.

mod check;
mod flood;
mod trust;

pub(crate) use check::{Caller, Unauthenticated, check};
pub(crate) use flood::Flood;
pub(crate) use trust::Trust;
