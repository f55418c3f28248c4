//! Authentication: a bearer token in the headers, checked before a byte of the body is read.
//!
//! Start with [`check`], which asks the policy in force on every call whether the token is still valid (expiry,
//! revocation, suspension). [`token_verifier`] verifies each signature once and caches the claims. [`failure_limit`]
//! bounds the work that clients without a valid token can cause.

mod check;
mod failure_limit;
mod token_verifier;

pub(crate) use check::{Caller, Unauthenticated, check_token};
pub(crate) use failure_limit::FailureLimit;
pub(crate) use token_verifier::TokenVerifier;
