//! What is to be done about a principal's credential. Pure: the clock is an argument.

use std::time::Duration;

use mcp_fleet_crds::tenant::Credentials;

use super::{Claims, McpFleetClaims};

/// What a token that was issued says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub serial: i64,
    /// `iat`, Unix seconds.
    pub iat: i64,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
}

/// Claims that a token of the principal has to contain, apart from times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIdentity {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// `sub`: `<namespace>/<name>`.
    pub subject: String,
    /// UID of the principal.
    pub principal: String,
    /// UID of the tenant.
    pub tenant: String,
    /// Id of the key that signs.
    pub kid: String,
}

impl TokenIdentity {
    /// Returns the claims of a token with this id that is valid from `iat` to `exp`, Unix seconds.
    pub fn claims(self, serial: i64, jti: String, (iat, exp): (i64, i64)) -> Claims {
        let Self { issuer, audience, subject, principal, tenant, kid: _ } = self;
        let mcp_fleet = McpFleetClaims { principal, tenant, serial };
        Claims { iss: issuer, aud: audience, sub: subject, jti, iat, exp, mcp_fleet }
    }
}

/// How long a token is valid, and how long before its end the next one is issued; whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From the issue of a token to its end.
    pub lifetime: i64,
    /// From the issue of the next token to the end of this one.
    pub overlap: i64,
}

impl Lifetime {
    /// Returns what the tenant's spec says.
    pub fn of(credentials: &Credentials) -> Self {
        let seconds = |window: Duration| i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        Self { lifetime: seconds(credentials.lifetime.get()), overlap: seconds(credentials.overlap.get()) }
    }

    /// Returns when a token that is issued at `now`, Unix seconds, expires.
    pub fn end(self, now: i64) -> i64 {
        now.saturating_add(self.lifetime)
    }
}

/// The token that the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    pub claims: Claims,
    /// Id of the key that signed it.
    pub kid: String,
}

impl Current {
    /// Returns a token that was issued with an identity. Nothing depends on its id.
    pub fn of(token: Token, identity: &TokenIdentity) -> Self {
        let claims = identity.clone().claims(token.serial, String::new(), (token.iat, token.expires_at));
        Self { claims, kid: identity.kid.clone() }
    }
}

/// What is to be done about the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Keep the token, which is good until it is rotated.
    Keep { rotate_in: Duration },
    /// Issue a token now.
    Issue { serial: i64, cause: Cause },
    /// Wait: a token issued in this second would be revoked already.
    Wait { wait: Duration },
}

/// Why a token is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no token that can be used.
    Missing,
    /// The token was revoked.
    Revoked,
    /// The token has other claims than it should, or is valid for longer than it may be.
    Outdated,
    /// The token is due for rotation.
    Rotation,
}

/// Decides what is to be done. `serial` is the highest serial in status. Tokens issued until `revoked_until` are refused.
/// Times are Unix seconds.
pub fn plan(
    current: Option<&Current>,
    want: &TokenIdentity,
    lifetime: Lifetime,
    serial: i64,
    revoked_until: Option<i64>,
    now: i64,
) -> Plan {
    let cause = match current {
        None => Cause::Missing,
        Some(current) if revoked_until.is_some_and(|until| current.claims.iat <= until) => Cause::Revoked,
        Some(current) if !has_claims(current, want) => Cause::Outdated,
        Some(Current { claims, .. }) if claims.exp.saturating_sub(claims.iat) > lifetime.lifetime => Cause::Outdated,
        // Issued by a clock that was ahead.
        Some(Current { claims, .. }) if claims.iat > now.saturating_add(60) => Cause::Outdated,
        Some(Current { claims, .. }) => {
            let left = rotates_at(claims.exp, lifetime).saturating_sub(now);
            match u64::try_from(left) {
                Ok(left) if left > 0 => return Plan::Keep { rotate_in: Duration::from_secs(left) },
                _ => Cause::Rotation,
            }
        }
    };
    if let Some(until) = revoked_until.filter(|until| now <= *until) {
        return Plan::Wait {
            wait: Duration::from_secs(u64::try_from(until.saturating_sub(now)).unwrap_or(0).saturating_add(1)),
        };
    }
    let highest = current.map_or(serial, |current| serial.max(current.claims.mcp_fleet.serial));
    Plan::Issue { serial: highest.saturating_add(1), cause }
}

/// Returns when a token that ends at `exp` is rotated.
pub fn rotates_at(exp: i64, lifetime: Lifetime) -> i64 {
    exp.saturating_sub(lifetime.overlap)
}

fn has_claims(current: &Current, want: &TokenIdentity) -> bool {
    let Claims { iss, aud, sub, jti: _, iat: _, exp: _, mcp_fleet } = &current.claims;
    let TokenIdentity { issuer, audience, subject, principal, tenant, kid } = want;
    (iss, aud, sub, &mcp_fleet.principal, &mcp_fleet.tenant, &current.kid)
        == (issuer, audience, subject, principal, tenant, kid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Lifetime = Lifetime { lifetime: 3600, overlap: 600 };

    fn identity() -> TokenIdentity {
        TokenIdentity {
            issuer: "https://issuer".into(),
            audience: "https://gateway.acme-mcp.svc".into(),
            subject: "acme/coder".into(),
            principal: "p-1".into(),
            tenant: "u-1".into(),
            kid: "k-1".into(),
        }
    }

    fn current(iat: i64) -> Current {
        let claims = Claims {
            iss: "https://issuer".into(),
            aud: "https://gateway.acme-mcp.svc".into(),
            sub: "acme/coder".into(),
            jti: "j".into(),
            iat,
            exp: iat + 3600,
            mcp_fleet: McpFleetClaims { principal: "p-1".into(), tenant: "u-1".into(), serial: 7 },
        };
        Current { claims, kid: "k-1".into() }
    }

    fn at(current: &Current, revoked_until: Option<i64>, now: i64) -> Plan {
        plan(Some(current), &identity(), LIFETIME, 5, revoked_until, now)
    }

    #[test]
    fn the_first_token_follows_the_highest_serial_known() {
        let first = plan(None, &identity(), LIFETIME, 5, None, 1000);
        assert_eq!(first, Plan::Issue { serial: 6, cause: Cause::Missing });
    }

    #[test]
    fn a_token_is_rotated_an_overlap_before_it_ends() {
        let token = current(1000);
        assert_eq!(at(&token, None, 1000), Plan::Keep { rotate_in: Duration::from_secs(3000) });
        assert_eq!(at(&token, None, 3999), Plan::Keep { rotate_in: Duration::from_secs(1) });
        assert_eq!(at(&token, None, 4000), Plan::Issue { serial: 8, cause: Cause::Rotation });
        assert_eq!(at(&token, None, 9000), Plan::Issue { serial: 8, cause: Cause::Rotation });
    }

    #[test]
    fn a_revoked_token_is_replaced_by_one_of_a_later_second() {
        let token = current(1000);
        assert_eq!(at(&token, Some(999), 1000), Plan::Keep { rotate_in: Duration::from_secs(3000) });
        assert_eq!(at(&token, Some(1000), 1000), Plan::Wait { wait: Duration::from_secs(1) });
        assert_eq!(at(&token, Some(1000), 1001), Plan::Issue { serial: 8, cause: Cause::Revoked });
    }

    #[test]
    fn a_token_with_other_claims_is_replaced() {
        let mut other_key = current(1000);
        other_key.kid = "k-2".into();
        assert_eq!(at(&other_key, None, 1000), Plan::Issue { serial: 8, cause: Cause::Outdated });
        let mut other_principal = current(1000);
        other_principal.claims.mcp_fleet.principal = "p-2".into();
        assert_eq!(at(&other_principal, None, 1000), Plan::Issue { serial: 8, cause: Cause::Outdated });
    }

    #[test]
    fn a_token_with_impossible_times_is_replaced() {
        for (iat, exp) in [(-10, i64::MAX), (i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (i64::MIN, i64::MIN)] {
            let mut odd = current(1000);
            (odd.claims.iat, odd.claims.exp) = (iat, exp);
            assert!(matches!(at(&odd, None, 1000), Plan::Issue { serial: 8, .. }), "{iat} {exp}");
        }
    }

    #[test]
    fn a_shorter_lifetime_replaces_issued_tokens() {
        let mut long = current(1000);
        long.claims.exp = 1000 + 7200;
        assert_eq!(at(&long, None, 1000), Plan::Issue { serial: 8, cause: Cause::Outdated });
    }
}
