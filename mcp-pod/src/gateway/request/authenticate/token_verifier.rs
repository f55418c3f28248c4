//! Verification of token signatures with the tenant's keys, once for each token.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mcp_fleet_policy::authenticate::Claims;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::reason::Reason;
use parking_lot::RwLock;
use serde::Deserialize;

/// Verified tokens in the cache. A principal has two at a time, while it rotates.
const MAX_CACHED_TOKENS: usize = 8192;
/// Bytes of the longest token that is read.
const MAX_TOKEN_LENGTH: usize = 4096;

/// The tenant's keys, and the claims of the tokens that were verified with them.
///
/// Lives as long as the keys: a policy with other keys starts with an empty cache. Everything else about a token is
/// checked on every call.
#[derive(Debug)]
pub(crate) struct TokenVerifier {
    /// `aud` of the tenant's tokens.
    audiences: Vec<String>,
    keys: Vec<(String, Vec<u8>)>,
    verified: RwLock<HashMap<TokenKey, Arc<Claims>, foldhash::fast::RandomState>>,
}

/// SHA-256 of a token, so that the cache contains no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey([u8; 32]);

impl TokenKey {
    pub(super) fn of(token: &str) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(key)
    }
}

/// The claim that shows that a token belongs to another tenant, whose key is unknown here.
#[derive(Deserialize)]
struct AudienceClaim {
    aud: String,
}

impl TokenVerifier {
    /// Returns a verifier with the keys of the policy: `previous`, with its cache, if audiences and keys are the same.
    pub(crate) fn for_policy(policy: &TenantPolicy, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let new = Self {
            audiences: std::iter::once(&policy.audience).chain(&policy.other_audiences).cloned().collect(),
            keys: policy.keys.iter().map(|key| (key.kid.clone(), key.point.clone())).collect(),
            verified: RwLock::default(),
        };
        match previous {
            Some(previous) if previous.has_same_keys(&new) => Arc::clone(previous),
            _ => Arc::new(new),
        }
    }

    fn has_same_keys(&self, other: &Self) -> bool {
        self.audiences == other.audiences && self.keys == other.keys
    }

    /// Returns the claims of a token that was verified before.
    pub(super) fn cached(&self, key: &TokenKey) -> Option<Arc<Claims>> {
        self.verified.read().get(key).cloned()
    }

    /// Verifies the signature of a token and caches its claims. Does not check its expiry.
    pub(super) fn verify(&self, token: &str, key: TokenKey, now: i64) -> Result<Arc<Claims>, Reason> {
        let claims = Arc::new(self.read(token)?);
        let mut cache = self.verified.write();
        if cache.len() >= MAX_CACHED_TOKENS {
            cache.retain(|_, claims| claims.exp > now);
        }
        if cache.len() >= MAX_CACHED_TOKENS {
            // More unexpired tokens than principals can have: start over, at the cost of one verification each.
            cache.clear();
        }
        cache.insert(key, Arc::clone(&claims));
        Ok(claims)
    }

    fn read(&self, token: &str) -> Result<Claims, Reason> {
        if token.len() > MAX_TOKEN_LENGTH {
            return Err(Reason::TokenInvalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Reason::TokenInvalid)?;
        // RFC 9068, section 4: only access tokens are accepted. RFC 7515, section 4.1.11: a `crit` header that is not
        // understood makes a token invalid, and none is understood here.
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
        // The policy engine checks these claims on every call.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ec_der(point), &validation)
            .map(|verified| verified.claims)
            .map_err(|_| Reason::TokenInvalid)
    }

    /// Returns the reason to reject a token with an unknown key. The unverified claims decide only which hint the
    /// client gets.
    fn unknown_key(&self, token: &str) -> Reason {
        match jsonwebtoken::dangerous::insecure_decode_claims::<AudienceClaim>(token) {
            Ok(claim) if !self.audiences.contains(&claim.aud) => Reason::TokenWrongAudience,
            _ => Reason::TokenInvalid,
        }
    }
}
