//! Authentication: a bearer token in the headers, checked before a byte of the body is read.
//!
//! [`token_verifier`] verifies a signature once and caches the result; [`check`] asks the policy in force on every
//! call whether the token is still good (expiry, revocation, suspension). [`failure_limit`] bounds the work that
//! callers without a good token can cause.

mod check;
mod failure_limit;
mod token_verifier;

pub(crate) use check::{Caller, Unauthenticated, check};
pub(crate) use failure_limit::FailureLimit;
pub(crate) use token_verifier::TokenVerifier;
