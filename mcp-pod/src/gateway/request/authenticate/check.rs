//! The check of one request's token, from its headers alone.

use std::net::IpAddr;
use std::time::Instant;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use mcp_fleet_policy::authenticate::check as still_good;
use mcp_fleet_policy::engine::{Compiled, PrincipalRef};
use mcp_fleet_policy::reason::Reason;

use super::token_verifier::TokenKey;
use super::{FailureLimit, TokenVerifier};

/// Who calls, by a good token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'p> {
    pub(crate) principal: PrincipalRef<'p>,
    /// Why the caller gets nothing all the same: it, or its tenant, is suspended.
    pub(crate) suspended: Option<Reason>,
}

/// Why there is no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unauthenticated {
    /// 401.
    Refused(Reason),
    /// 429: too many failures from there; this one was not looked at.
    TooManyFailures,
}

/// The token of the `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Reason> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Reason::TokenMissing)?;
    // Two could be read differently by whoever stands before us.
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

/// Finds out who calls.
pub(crate) fn check<'p>(
    policy: &'p Compiled,
    verifier: &TokenVerifier,
    failures: &FailureLimit,
    peer: IpAddr,
    headers: &HeaderMap,
    now: i64,
) -> Result<Caller<'p>, Unauthenticated> {
    let refused = |reason| {
        failures.failed(peer, Instant::now());
        Err(Unauthenticated::Refused(reason))
    };
    let looked_at = || failures.admits(peer, Instant::now());
    let token = match bearer(headers) {
        Ok(token) => token,
        Err(_) if !looked_at() => return Err(Unauthenticated::TooManyFailures),
        Err(reason) => return refused(reason),
    };
    let key = TokenKey::of(token);
    let claims = match verifier.remembered(&key) {
        Some(claims) => claims,
        None if !looked_at() => return Err(Unauthenticated::TooManyFailures),
        None => match verifier.verify(token, key, now) {
            Ok(claims) => claims,
            Err(reason) => return refused(reason),
        },
    };
    match still_good(policy, &claims, now) {
        Ok(principal) => Ok(Caller { principal, suspended: None }),
        Err(reason @ (Reason::TenantSuspended | Reason::PrincipalSuspended)) => {
            match policy.principal(&claims.mcp_fleet.principal) {
                Some(principal) => Ok(Caller { principal, suspended: Some(reason) }),
                None => refused(Reason::PrincipalUnknown),
            }
        }
        // A signature that was good is no flood, however often its token is sent.
        Err(reason) => Err(Unauthenticated::Refused(reason)),
    }
}
