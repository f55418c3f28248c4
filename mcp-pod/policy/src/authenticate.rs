//! From the claims of a verified token to the principal that it names.
//!
//! Whoever calls has checked the signature (ES256, `typ: at+jwt`, a key of the policy); what the claims mean under
//! the policy is decided here, without leeway: clocks of one cluster agree well enough, and rotation overlaps.

use serde::Deserialize;

use crate::engine::{Compiled, PrincipalRef};
use crate::reason::Reason;

/// How far in the future a token may have been issued, in seconds: clocks of two nodes differ a little.
const CLOCK_SKEW: i64 = 60;

/// The claims of a managed credential (RFC 9068 and one private claim).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// The issuer: the tenant's token service.
    pub iss: String,
    /// The audience: the origin of the tenant's endpoint. A list is refused.
    pub aud: String,
    /// `<namespace>/<name>` of the principal.
    pub sub: String,
    /// When it was issued, in Unix seconds.
    pub iat: i64,
    /// From when on it is refused, in Unix seconds.
    pub exp: i64,
    /// Its id.
    pub jti: String,
    /// What is ours.
    pub mcp_fleet: FleetClaims,
}

/// The private claim.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FleetClaims {
    /// UID of the principal.
    pub principal: String,
    /// UID of the tenant.
    pub tenant: String,
    /// Counts the credentials of the principal.
    pub serial: u64,
}

/// The principal that the token names, if it may call now; `now` is Unix seconds.
///
/// What is wrong with the token comes before what is wrong with its principal or tenant, so that nobody without a
/// good token hears of these.
pub fn check<'p>(compiled: &'p Compiled, claims: &Claims, now: i64) -> Result<PrincipalRef<'p>, Reason> {
    let Claims { iss, aud, sub, iat, exp, jti: _, mcp_fleet: FleetClaims { principal, tenant, serial: _ } } = claims;
    let policy = compiled.policy();
    if *aud != policy.audience || *iss != policy.issuer || *tenant != policy.tenant_uid {
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
    if principal.policy().revoked_until.is_some_and(|until| *iat <= until) {
        return Err(Reason::TokenRevoked);
    }
    if principal.policy().suspended {
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

    fn verdict(
        policy: impl FnOnce(&mut crate::model::TenantPolicy),
        token: impl FnOnce(&mut Claims),
    ) -> Result<String, Reason> {
        let (mut tenant, mut claims) = (testing::policy(), claims());
        policy(&mut tenant);
        token(&mut claims);
        let compiled = Compiled::new(tenant).unwrap();
        check(&compiled, &claims, NOW).map(|principal| principal.label().to_owned())
    }

    #[test]
    fn a_token_names_its_principal() {
        assert_eq!(verdict(|_| {}, |_| {}), Ok("acme/coder".into()));
    }

    #[test]
    fn a_token_for_another_tenant_is_worth_nothing() {
        let refused = Err(Reason::TokenWrongAudience);
        assert_eq!(verdict(|_| {}, |token| token.aud.push('/')), refused);
        assert_eq!(verdict(|_| {}, |token| token.iss = "https://elsewhere.example".into()), refused);
        assert_eq!(verdict(|_| {}, |token| token.mcp_fleet.tenant = "t-0".into()), refused);
    }

    #[test]
    fn time_ends_a_token_without_leeway() {
        assert_eq!(verdict(|_| {}, |token| token.exp = NOW), Err(Reason::TokenExpired));
        assert_eq!(verdict(|_| {}, |token| token.exp = NOW + 1), Ok("acme/coder".into()));
        assert_eq!(verdict(|_| {}, |token| (token.iat, token.exp) = (NOW + 61, NOW + 99)), Err(Reason::TokenInvalid));
        assert_eq!(verdict(|_| {}, |token| (token.iat, token.exp) = (NOW + 9, NOW + 9)), Err(Reason::TokenInvalid));
    }

    #[test]
    fn a_revocation_covers_what_was_issued_up_to_its_second() {
        let revoke = |until| {
            move |policy: &mut crate::model::TenantPolicy| {
                policy.principals[0].revoked_until = Some(until);
            }
        };
        assert_eq!(verdict(revoke(NOW - 10), |_| {}), Err(Reason::TokenRevoked));
        assert_eq!(verdict(revoke(NOW - 11), |_| {}), Ok("acme/coder".into()));
    }

    #[test]
    fn principals_are_known_by_uid_and_name() {
        assert_eq!(verdict(|_| {}, |token| token.mcp_fleet.principal = "p-0".into()), Err(Reason::PrincipalUnknown));
        assert_eq!(verdict(|_| {}, |token| token.sub = "acme/admin".into()), Err(Reason::TokenInvalid));
        assert_eq!(verdict(|policy| policy.principals[0].suspended = true, |_| {}), Err(Reason::PrincipalSuspended));
        assert_eq!(verdict(|policy| policy.suspended = true, |_| {}), Err(Reason::TenantSuspended));
        assert_eq!(verdict(|policy| policy.suspended = true, |token| token.exp = NOW), Err(Reason::TokenExpired));
    }

    #[test]
    fn a_list_of_audiences_is_not_read() {
        let list = r#"{"iss":"i","aud":["a"],"sub":"s","iat":1,"exp":2,"jti":"j","mcp_fleet":{"principal":"p","tenant":"t","serial":1}}"#;
        assert!(serde_json::from_str::<Claims>(list).is_err());
    }
}
