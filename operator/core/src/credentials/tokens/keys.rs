//! The keys of one tenant: one signs its tokens, one seals its session ids.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use sha2::{Digest, Sha256};

/// Why a key could not be generated or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key could not be generated, or is not a P-256 key in PKCS #8.
    #[error("failed to generate or read a signing key")]
    Key(#[from] rcgen::Error),
    /// The random number generator failed.
    #[error("failed to get random bytes")]
    Random,
    /// The Secret lacks an entry, or an entry is invalid.
    #[error("failed to read the tenant's keys: {0}")]
    Invalid(&'static str),
}

/// Keys of one tenant.
#[derive(Clone)]
pub struct TenantKeys {
    /// Identifier of the signing key in tokens and policies: the first 16 bytes of the SHA-256 of the point, in hex.
    pub kid: String,
    /// Public key as an uncompressed point (SEC 1, 2.3.3): 65 bytes.
    pub point: Vec<u8>,
    /// Signing key, PKCS #8 DER.
    pub pkcs8: Vec<u8>,
    /// Key that seals legacy session ids: 32 random bytes.
    pub session: [u8; 32],
}

impl std::fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantKeys").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl TenantKeys {
    /// Generates new keys.
    pub fn generate() -> Result<Self, KeyError> {
        let mut session = [0; 32];
        rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut session).map_err(|_| KeyError::Random)?;
        Ok(Self::of(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?, session))
    }

    /// Parses stored keys.
    pub fn from_parts(pkcs8: &[u8], session: &[u8]) -> Result<Self, KeyError> {
        let session = session.try_into().map_err(|_| KeyError::Invalid("`session` is not 32 bytes"))?;
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(pkcs8.to_vec());
        Ok(Self::of(&KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?, session))
    }

    fn of(pair: &KeyPair, session: [u8; 32]) -> Self {
        let point = pair.public_key_raw().to_vec();
        Self { kid: kid(&point), point, pkcs8: pair.serialize_der(), session }
    }
}

fn kid(point: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(point);
    digest.iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_keys_parse_to_the_same_keys() {
        let keys = TenantKeys::generate().unwrap();
        let back = TenantKeys::from_parts(&keys.pkcs8, &keys.session).unwrap();
        assert_eq!((back.kid, back.point, back.session), (keys.kid, keys.point, keys.session));
    }

    #[test]
    fn the_point_is_uncompressed_and_the_key_id_is_32_hex_digits() {
        let keys = TenantKeys::generate().unwrap();
        assert_eq!((keys.point.len(), keys.point[0]), (65, 4));
        assert!(keys.kid.len() == 32 && keys.kid.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }

    #[test]
    fn a_short_session_key_is_rejected() {
        let keys = TenantKeys::generate().unwrap();
        assert!(TenantKeys::from_parts(&keys.pkcs8, &[0; 31]).is_err());
    }
}
