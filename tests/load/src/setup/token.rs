//! The signing key of the tenant, and the token of its only principal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcp_fleet_policy::model::VerificationKey;
use rcgen::{KeyPair, PublicKeyData as _};

use super::{AUDIENCE, ISSUER, PRINCIPAL_UID, TENANT_UID};

const KID: &str = "bench";
/// Lifetime of the token, longer than any run.
const LIFETIME: Duration = Duration::from_hours(2);

/// An ES256 signing key.
#[derive(Debug)]
pub(crate) struct SigningKey(KeyPair);

impl SigningKey {
    /// Generates a key.
    pub(crate) fn generate() -> anyhow::Result<Self> {
        Ok(Self(KeyPair::generate()?))
    }

    /// Returns the verification key for the policy.
    pub(crate) fn verification(&self) -> VerificationKey {
        VerificationKey { kid: KID.to_owned(), point: self.0.der_bytes().to_vec() }
    }

    /// Returns a token with the claims that the operator would issue.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let claims = serde_json::json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "bench/agent",
            "jti": "bench-1",
            "iat": now.as_secs().saturating_sub(2),
            "exp": (now + LIFETIME).as_secs(),
            "mcp_fleet": {"principal": PRINCIPAL_UID, "tenant": TENANT_UID, "serial": 1},
        });
        let header =
            Header { typ: Some("at+jwt".to_owned()), kid: Some(KID.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.0.serialize_pem().as_bytes())?;
        Ok(jsonwebtoken::encode(&header, &claims, &key)?)
    }
}
