//! Which tokens are signed with the tenant's keys, verified once for each token.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mcp_fleet_policy::authenticate::Claims;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::reason::Reason;
use parking_lot::RwLock;
use serde::Deserialize;

/// Tokens whose verification is remembered. A principal has two at a time, while it rotates.
const REMEMBERED: usize = 8192;
/// The longest token that is looked at.
const LONGEST: usize = 4096;
/// The tenant's keys, and the tokens whose signature was found to be made with one of them.
///
/// Lives as long as the keys: a policy that changes them starts with an empty memory. Everything else about a token
/// is checked on every call.
#[derive(Debug)]
pub(crate) struct TokenVerifier {
    audience: String,
    keys: Vec<(String, Vec<u8>)>,
    verified: RwLock<HashMap<TokenKey, Arc<Claims>, foldhash::fast::RandomState>>,
}

/// SHA-256 of a token: the cache holds no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey([u8; 32]);

impl TokenKey {
    pub(super) fn of(token: &str) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(key)
    }
}

/// The part of the claims that tells another tenant's token, before its signature can be verified.
#[derive(Deserialize)]
struct Addressee {
    aud: String,
}

impl TokenVerifier {
    /// What that policy trusts; the memory of `before` is kept where it trusts the same.
    pub(crate) fn for_policy(policy: &TenantPolicy, before: Option<&Arc<Self>>) -> Arc<Self> {
        let trust = Self {
            audience: policy.audience.clone(),
            keys: policy.keys.iter().map(|key| (key.kid.clone(), key.point.clone())).collect(),
            verified: RwLock::default(),
        };
        match before {
            Some(before) if before.same(&trust) => Arc::clone(before),
            _ => Arc::new(trust),
        }
    }

    fn same(&self, other: &Self) -> bool {
        self.audience == other.audience && self.keys == other.keys
    }

    /// What that token was found to say.
    pub(super) fn remembered(&self, key: &TokenKey) -> Option<Arc<Claims>> {
        self.verified.read().get(key).cloned()
    }

    /// Verifies a token and remembers it. Does not look at its expiry.
    pub(super) fn verify(&self, token: &str, key: TokenKey, now: i64) -> Result<Arc<Claims>, Reason> {
        let verified = Arc::new(self.read(token)?);
        let mut memory = self.verified.write();
        if memory.len() >= REMEMBERED {
            memory.retain(|_, claims| claims.exp > now);
        }
        if memory.len() >= REMEMBERED {
            // More live tokens than principals could hold: forget all, and pay one verification each.
            memory.clear();
        }
        memory.insert(key, Arc::clone(&verified));
        Ok(verified)
    }

    fn read(&self, token: &str) -> Result<Claims, Reason> {
        if token.len() > LONGEST {
            return Err(Reason::TokenInvalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Reason::TokenInvalid)?;
        // RFC 9068, 4: anything but an access token is refused; a `crit` that we cannot honour as well (RFC 7515).
        let access_token = header
            .typ
            .as_deref()
            .is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt"));
        if header.alg != Algorithm::ES256 || !access_token || header.crit.is_some() {
            return Err(Reason::TokenInvalid);
        }
        let kid = header.kid.as_deref().ok_or(Reason::TokenInvalid)?;
        let Some((_, point)) = self.keys.iter().find(|(known, _)| known == kid) else {
            return Err(self.unknown_key(token));
        };
        let mut validation = Validation::new(Algorithm::ES256);
        // Names and times are checked on every call, by the policy engine.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ec_der(point), &validation)
            .map(|verified| verified.claims)
            .map_err(|_| Reason::TokenInvalid)
    }

    /// Rejection either way; only which advice the caller gets depends on what the unverified token says.
    fn unknown_key(&self, token: &str) -> Reason {
        match jsonwebtoken::dangerous::insecure_decode_claims::<Addressee>(token) {
            Ok(addressee) if addressee.aud != self.audience => Reason::TokenWrongAudience,
            _ => Reason::TokenInvalid,
        }
    }
}
