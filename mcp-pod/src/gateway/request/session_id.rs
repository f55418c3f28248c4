//! Legacy session ids: sealed, so that no replica has to store them.
//!
//! An id carries the negotiated revision and the time. It is encrypted and authenticated under a key of the tenant,
//! and bound to the principal and the server it was made for. A session id can only lead to a rejection, never to
//! access: the token of every request is checked regardless.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::decode::Revision;

/// Lifetime of a session, after which its client has to initialize again.
const LIFETIME_SECONDS: i64 = 24 * 3600;
/// How far the clock of the replica that sealed the id may be ahead.
const MAX_SKEW_SECONDS: i64 = 60;
/// Length of the plaintext: format version, revision and time.
const PLAINTEXT_LENGTH: usize = 1 + 1 + 8;
const TAG_LENGTH: usize = 16;
const FORMAT_VERSION: u8 = 1;

/// Seals and opens the session ids of one tenant.
pub(crate) struct SessionSealer {
    key: LessSafeKey,
}

/// The id was not sealed by this tenant for this principal and server, or it is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to open a session id")]
pub(crate) struct InvalidSessionId;

/// There were no random bytes, or the key has the wrong length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to seal a session id")]
pub(crate) struct SealError;

/// The principal and the server that a session belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionOwner<'a> {
    pub(crate) principal_uid: &'a str,
    pub(crate) server_uid: &'a str,
}

impl std::fmt::Debug for SessionSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSealer")
    }
}

impl SessionSealer {
    /// Returns a sealer under the tenant's session key: any secret, in a policy 32 random bytes.
    pub(crate) fn new(session_key: &[u8]) -> Result<Self, SealError> {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, session_key), b"mcp-fleet session id v1");
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).map_err(|_| SealError)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Returns a new id for a session of `owner`, sealed at `now` (Unix seconds).
    pub(crate) fn seal(&self, owner: SessionOwner<'_>, revision: Revision, now: i64) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SealError)?;
        let mut plaintext = [0; PLAINTEXT_LENGTH];
        plaintext[0] = FORMAT_VERSION;
        plaintext[1] = revision.code();
        plaintext[2..].copy_from_slice(&now.to_be_bytes());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), owner.associated_data(), &mut plaintext)
            .map_err(|_| SealError)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &plaintext, tag.as_ref()].concat()))
    }

    /// Returns the revision that the session negotiated, if the id is valid for `owner` at `now` (Unix seconds).
    pub(crate) fn open(&self, id: &[u8], owner: SessionOwner<'_>, now: i64) -> Result<Revision, InvalidSessionId> {
        let mut sealed = [0; NONCE_LEN + PLAINTEXT_LENGTH + TAG_LENGTH];
        let length = URL_SAFE_NO_PAD.decode_slice(id, &mut sealed).map_err(|_| InvalidSessionId)?;
        if length != sealed.len() {
            return Err(InvalidSessionId);
        }
        let (nonce, sealed) = sealed.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| InvalidSessionId)?;
        let plaintext = self.key.open_in_place(nonce, owner.associated_data(), sealed).map_err(|_| InvalidSessionId)?;
        let (&[format, code], time) = plaintext.split_first_chunk().ok_or(InvalidSessionId)?;
        let sealed_at = i64::from_be_bytes(time.try_into().map_err(|_| InvalidSessionId)?);
        let age = now.saturating_sub(sealed_at);
        if format != FORMAT_VERSION || !(-MAX_SKEW_SECONDS..LIFETIME_SECONDS).contains(&age) {
            return Err(InvalidSessionId);
        }
        Revision::from_code(code).ok_or(InvalidSessionId)
    }
}

impl SessionOwner<'_> {
    fn associated_data(self) -> Aad<Vec<u8>> {
        // UIDs contain no NUL, so no two owners have the same associated data.
        Aad::from([self.principal_uid.as_bytes(), b"\0", self.server_uid.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const CODER: SessionOwner<'_> = SessionOwner { principal_uid: "coder-uid", server_uid: "files-uid" };

    #[test]
    fn a_session_opens_for_its_owner_until_it_is_too_old() {
        let sealer = SessionSealer::new(&[7; 32]).unwrap();
        let id = sealer.seal(CODER, Revision::V2025_06_18, 1_000_000).unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(sealer.open(id.as_bytes(), CODER, 1_000_000), Ok(Revision::V2025_06_18));
        assert_eq!(sealer.open(id.as_bytes(), CODER, 1_000_000 + 86_399), Ok(Revision::V2025_06_18));
        assert_eq!(sealer.open(id.as_bytes(), CODER, 1_000_000 + 86_400), Err(InvalidSessionId));
        assert_eq!(sealer.open(id.as_bytes(), CODER, 1_000_000 - 61), Err(InvalidSessionId));
    }

    #[test]
    fn a_session_opens_only_for_its_owner_and_under_its_key() {
        let sealer = SessionSealer::new(&[7; 32]).unwrap();
        let id = sealer.seal(CODER, Revision::V2025_11_25, 0).unwrap();
        let other = SessionOwner { principal_uid: "other-uid", ..CODER };
        assert_eq!(sealer.open(id.as_bytes(), other, 0), Err(InvalidSessionId));
        let elsewhere = SessionOwner { server_uid: "mail-uid", ..CODER };
        assert_eq!(sealer.open(id.as_bytes(), elsewhere, 0), Err(InvalidSessionId));
        assert_eq!(SessionSealer::new(&[8; 32]).unwrap().open(id.as_bytes(), CODER, 0), Err(InvalidSessionId));
    }

    #[test]
    fn an_id_with_any_character_changed_is_refused() {
        let sealer = SessionSealer::new(&[7; 32]).unwrap();
        let id = sealer.seal(CODER, Revision::V2025_11_25, 0).unwrap().into_bytes();
        for position in 0..id.len() {
            let mut changed = id.clone();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            assert_eq!(sealer.open(&changed, CODER, 0), Err(InvalidSessionId), "at {position}");
        }
        for garbage in [&b""[..], b"x", &id[1..], &[b'A'; 4096], b"\xff\xfe"] {
            assert_eq!(sealer.open(garbage, CODER, 0), Err(InvalidSessionId));
        }
    }
}
