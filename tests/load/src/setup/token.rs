//! A tenant's signing key and the token of its one principal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcp_fleet_policy::model::VerificationKey;
use rcgen::{KeyPair, PublicKeyData as _};

use super::{AUDIENCE, ISSUER, PRINCIPAL_UID, TENANT_UID};

const KID: &str = "bench";
/// Longer than any run.
const LIFETIME: Duration = Duration::from_hours(2);

/// An ES256 key.
#[derive(Debug)]
pub(crate) struct SigningKey(KeyPair);

impl SigningKey {
    /// A new one.
    pub(crate) fn generate() -> anyhow::Result<Self> {
        Ok(Self(KeyPair::generate()?))
    }

    /// What the policy carries.
    pub(crate) fn verification(&self) -> VerificationKey {
        VerificationKey { kid: KID.to_owned(), point: self.0.der_bytes().to_vec() }
    }

    /// A token as the operator would issue it.
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
