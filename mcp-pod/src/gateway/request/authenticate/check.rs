//! The check of one request's token, from its headers alone.

use std::net::IpAddr;
use std::time::Instant;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use mcp_fleet_policy::authenticate::authenticate as check_claims;
use mcp_fleet_policy::engine::{Policy, PrincipalRef};
use mcp_fleet_policy::reason::Reason;

use super::token_verifier::TokenKey;
use super::{FailureLimit, TokenVerifier};
use crate::gateway::clock::Moment;

/// The caller of a request with a valid token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'p> {
    pub(crate) principal: PrincipalRef<'p>,
    /// Reason to deny everything the caller asks: the principal or its tenant is suspended.
    pub(crate) suspended: Option<Reason>,
    /// Expiry of the token.
    pub(crate) expires_at: Instant,
}

/// Why a request was not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unauthenticated {
    /// The token is missing or not valid: 401.
    Rejected {
        reason: Reason,
        /// Index of the principal, if the token is its own and is not accepted any more.
        principal: Option<usize>,
    },
    /// The address has failed too often, so its token was not verified: 429.
    TooManyFailures,
}

impl Unauthenticated {
    /// Returns the index of the principal whose token was rejected, if it is known.
    pub(crate) const fn principal(self) -> Option<usize> {
        match self {
            Self::Rejected { principal, .. } => principal,
            Self::TooManyFailures => None,
        }
    }
}

/// Returns the token in the `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Reason> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Reason::TokenMissing)?;
    // A proxy in front of the gateway could choose the other one of two.
    if values.next().is_some() {
        return Err(Reason::TokenInvalid);
    }
    let text = value.to_str().map_err(|_| Reason::TokenInvalid)?;
    let (scheme, token) = text.split_once(' ').ok_or(Reason::TokenMissing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Reason::TokenMissing);
    }
    Ok(token.trim_matches(' '))
}

/// Authenticates the caller of a request by its token.
pub(crate) fn check_token<'p>(
    policy: &'p Policy,
    verifier: &TokenVerifier,
    failures: &FailureLimit,
    address: IpAddr,
    headers: &HeaderMap,
    now: Moment,
) -> Result<Caller<'p>, Unauthenticated> {
    let reject = |reason| {
        failures.record(address, Instant::now());
        Err(Unauthenticated::Rejected { reason, principal: None })
    };
    let within_limit = || failures.admits(address, Instant::now());
    let unix = now.unix_seconds();
    let token = match bearer(headers) {
        Ok(token) => token,
        Err(_) if !within_limit() => return Err(Unauthenticated::TooManyFailures),
        Err(reason) => return reject(reason),
    };
    let key = TokenKey::of(token);
    let claims = match verifier.cached(&key) {
        Some(claims) => claims,
        None if !within_limit() => return Err(Unauthenticated::TooManyFailures),
        None => match verifier.verify(token, key, unix) {
            Ok(claims) => claims,
            Err(reason) => return reject(reason),
        },
    };
    let caller = |principal, suspended| Caller { principal, suspended, expires_at: now.instant_of(claims.exp) };
    match check_claims(policy, &claims, unix) {
        Ok(principal) => Ok(caller(principal, None)),
        Err(reason @ (Reason::TenantSuspended | Reason::PrincipalSuspended)) => {
            match policy.principal(&claims.mcp_fleet.principal) {
                Some(principal) => Ok(caller(principal, Some(reason))),
                None => reject(Reason::PrincipalUnknown),
            }
        }
        // A token with a valid signature is not part of a flood, so it does not count as a failure.
        Err(reason) => {
            let principal = policy.principal(&claims.mcp_fleet.principal).map(PrincipalRef::index);
            Err(Unauthenticated::Rejected { reason, principal })
        }
    }
}
