//! Resolves the claims of a verified token to its principal.
//!
//! The caller of [`check`] has already verified the signature (ES256, `typ: at+jwt`, a key of the policy). This module
//! evaluates the claims against the policy. Expiry has no leeway: clocks within a cluster agree well enough, and
//! rotated credentials overlap.

use serde::Deserialize;

use crate::engine::{Policy, PrincipalRef};
use crate::reason::Reason;

/// How far in the future `iat` may be, in seconds: the clocks of two nodes differ slightly.
const CLOCK_SKEW: i64 = 60;

/// The claims of a managed credential (RFC 9068 and one private claim).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Issuer: the tenant's token service.
    pub iss: String,
    /// Audience: an origin of the tenant's endpoint. A list is refused.
    pub aud: String,
    /// `<namespace>/<name>` of the principal.
    pub sub: String,
    /// Issue time, in Unix seconds.
    pub iat: i64,
    /// Expiry time, in Unix seconds; from then on the token is refused.
    pub exp: i64,
    /// Id of the token.
    pub jti: String,
    /// The private claim.
    pub mcp_fleet: FleetClaims,
}

/// The private claim of MCP Fleet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FleetClaims {
    /// UID of the principal.
    pub principal: String,
    /// UID of the tenant.
    pub tenant: String,
    /// Serial number of the credential, counted per principal.
    pub serial: u64,
}

/// Returns the principal of the token if it may call now; `now` is in Unix seconds.
///
/// Errors of the token take precedence over those of the principal and the tenant, so that only a caller with a valid
/// token learns about the latter.
pub fn authenticate<'p>(compiled: &'p Policy, claims: &Claims, now: i64) -> Result<PrincipalRef<'p>, Reason> {
    let Claims { iss, aud, sub, iat, exp, jti: _, mcp_fleet: FleetClaims { principal, tenant, serial: _ } } = claims;
    let policy = compiled.model();
    if !policy.accepts_audience(aud) || *iss != policy.issuer || *tenant != policy.tenant_uid {
        return Err(Reason::TokenWrongAudience);
    }
    if *exp <= now {
        return Err(Reason::TokenExpired);
    }
    if *iat > now.saturating_add(CLOCK_SKEW) || exp <= iat {
        return Err(Reason::TokenInvalid);
    }
    let principal = compiled.principal(principal).ok_or(Reason::PrincipalUnknown)?;
    if principal.label() != sub {
        return Err(Reason::TokenInvalid);
    }
    if principal.model().revoked_until.is_some_and(|until| *iat <= until) {
        return Err(Reason::TokenRevoked);
    }
    if principal.model().suspended {
        return Err(Reason::PrincipalSuspended);
    }
    if policy.suspended {
        return Err(Reason::TenantSuspended);
    }
    Ok(principal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const NOW: i64 = 1_795_305_600;

    fn claims() -> Claims {
        let policy = testing::policy();
        Claims {
            iss: policy.issuer,
            aud: policy.audience,
            sub: "acme/coder".into(),
            iat: NOW - 10,
            exp: NOW + 10,
            jti: "01J".into(),
            mcp_fleet: FleetClaims { principal: "p-coder".into(), tenant: policy.tenant_uid, serial: 7 },
        }
    }

    /// Checks a token after applying these changes to a valid policy and valid claims.
    fn check_with(
        policy: impl FnOnce(&mut crate::model::TenantPolicy),
        token: impl FnOnce(&mut Claims),
    ) -> Result<String, Reason> {
        let (mut tenant, mut claims) = (testing::policy(), claims());
        policy(&mut tenant);
        token(&mut claims);
        let compiled = Policy::new(tenant).unwrap();
        authenticate(&compiled, &claims, NOW).map(|principal| principal.label().to_owned())
    }

    #[test]
    fn a_valid_token_resolves_to_its_principal() {
        assert_eq!(check_with(|_| {}, |_| {}), Ok("acme/coder".into()));
    }

    #[test]
    fn a_token_for_another_tenant_is_refused() {
        let refused = Err(Reason::TokenWrongAudience);
        assert_eq!(check_with(|_| {}, |token| token.aud.push('/')), refused);
        assert_eq!(check_with(|_| {}, |token| token.iss = "https://elsewhere.example".into()), refused);
        assert_eq!(check_with(|_| {}, |token| token.mcp_fleet.tenant = "t-0".into()), refused);
    }

    #[test]
    fn a_token_for_another_name_of_the_tenant_is_accepted_while_the_policy_has_it() {
        let (named, other) = ("https://mcp.example.com", "https://old.example.com");
        let check = |accepted: &[&str]| {
            let accepted = accepted.iter().map(|name| (*name).to_owned()).collect();
            check_with(|policy| policy.other_audiences = accepted, |token| token.aud = named.into())
        };
        assert_eq!(check(&[other, named]), Ok("acme/coder".into()));
        assert_eq!(check(&[other]), Err(Reason::TokenWrongAudience));
        let others = |policy: &mut crate::model::TenantPolicy| policy.other_audiences = vec![named.into()];
        assert_eq!(check_with(others, |_| {}), Ok("acme/coder".into()), "the name in the cluster still counts");
    }

    #[test]
    fn a_token_expires_without_leeway() {
        assert_eq!(check_with(|_| {}, |token| token.exp = NOW), Err(Reason::TokenExpired));
        assert_eq!(check_with(|_| {}, |token| token.exp = NOW + 1), Ok("acme/coder".into()));
        assert_eq!(
            check_with(|_| {}, |token| (token.iat, token.exp) = (NOW + 61, NOW + 99)),
            Err(Reason::TokenInvalid)
        );
        assert_eq!(check_with(|_| {}, |token| (token.iat, token.exp) = (NOW + 9, NOW + 9)), Err(Reason::TokenInvalid));
    }

    #[test]
    fn a_revocation_covers_tokens_issued_up_to_its_second() {
        let revoke = |until| {
            move |policy: &mut crate::model::TenantPolicy| {
                policy.principals[0].revoked_until = Some(until);
            }
        };
        assert_eq!(check_with(revoke(NOW - 10), |_| {}), Err(Reason::TokenRevoked));
        assert_eq!(check_with(revoke(NOW - 11), |_| {}), Ok("acme/coder".into()));
    }

    #[test]
    fn a_principal_is_identified_by_uid_and_name() {
        assert_eq!(check_with(|_| {}, |token| token.mcp_fleet.principal = "p-0".into()), Err(Reason::PrincipalUnknown));
        assert_eq!(check_with(|_| {}, |token| token.sub = "acme/admin".into()), Err(Reason::TokenInvalid));
        assert_eq!(check_with(|policy| policy.principals[0].suspended = true, |_| {}), Err(Reason::PrincipalSuspended));
        assert_eq!(check_with(|policy| policy.suspended = true, |_| {}), Err(Reason::TenantSuspended));
        assert_eq!(check_with(|policy| policy.suspended = true, |token| token.exp = NOW), Err(Reason::TokenExpired));
    }

    #[test]
    fn a_list_of_audiences_is_refused() {
        let list = r#"{"iss":"i","aud":["a"],"sub":"s","iat":1,"exp":2,"jti":"j","mcp_fleet":{"principal":"p","tenant":"t","serial":1}}"#;
        assert!(serde_json::from_str::<Claims>(list).is_err());
    }
}
