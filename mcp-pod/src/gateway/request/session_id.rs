//! Legacy session ids: sealed, so that no replica has to remember them.
//!
//! An id carries the revision that was negotiated and when; it is encrypted and authenticated under a key of the
//! tenant and bound to the principal and the server it was made for. It says who *not* to serve, never who to
//! serve: every request is authenticated by its token all the same.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::decode::Revision;

/// How long a session lives; its client then initializes anew.
const LIFETIME_SECONDS: i64 = 24 * 3600;
/// How far ahead the clock of the replica that sealed the id may be.
const SKEW_SECONDS: i64 = 60;
/// Format, revision and time.
const PLAIN: usize = 1 + 1 + 8;
const TAG: usize = 16;
const FORMAT: u8 = 1;

/// Seals and opens the session ids of one tenant.
pub(crate) struct SessionSealer {
    key: LessSafeKey,
}

/// An id that this tenant did not seal for this principal and server, or one that is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to open a session id")]
pub(crate) struct Foreign;

/// No random bytes, or no key of the right length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to seal a session id")]
pub(crate) struct Unsealable;

/// Whom a session belongs to.
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
    /// The sealer under that tenant key. Any secret will do; the policy carries 32 random bytes.
    pub(crate) fn new(session_key: &[u8]) -> Result<Self, Unsealable> {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, session_key), b"mcp-fleet session id v1");
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).map_err(|_| Unsealable)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// A new id.
    pub(crate) fn seal(&self, owner: SessionOwner<'_>, revision: Revision, now: i64) -> Result<String, Unsealable> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Unsealable)?;
        let mut plain = [0; PLAIN];
        plain[0] = FORMAT;
        plain[1] = revision.code();
        plain[2..].copy_from_slice(&now.to_be_bytes());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), owner.aad(), &mut plain)
            .map_err(|_| Unsealable)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &plain, tag.as_ref()].concat()))
    }

    /// The revision that was negotiated with that id.
    pub(crate) fn open(&self, id: &[u8], owner: SessionOwner<'_>, now: i64) -> Result<Revision, Foreign> {
        let mut sealed = [0; NONCE_LEN + PLAIN + TAG];
        let length = URL_SAFE_NO_PAD.decode_slice(id, &mut sealed).map_err(|_| Foreign)?;
        if length != sealed.len() {
            return Err(Foreign);
        }
        let (nonce, sealed) = sealed.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Foreign)?;
        let plain = self.key.open_in_place(nonce, owner.aad(), sealed).map_err(|_| Foreign)?;
        let (&[format, code], time) = plain.split_first_chunk().ok_or(Foreign)?;
        let sealed_at = i64::from_be_bytes(time.try_into().map_err(|_| Foreign)?);
        let age = now.saturating_sub(sealed_at);
        if format != FORMAT || !(-SKEW_SECONDS..LIFETIME_SECONDS).contains(&age) {
            return Err(Foreign);
        }
        Revision::from_code(code).ok_or(Foreign)
    }
}

impl SessionOwner<'_> {
    fn aad(self) -> Aad<Vec<u8>> {
        // UIDs hold no NUL, so the two cannot be shifted into each other.
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
        assert_eq!(sealer.open(id.as_bytes(), CODER, 1_000_000 + 86_400), Err(Foreign));
        assert_eq!(sealer.open(id.as_bytes(), CODER, 1_000_000 - 61), Err(Foreign));
    }

    #[test]
    fn a_session_is_worth_nothing_to_anybody_else() {
        let sealer = SessionSealer::new(&[7; 32]).unwrap();
        let id = sealer.seal(CODER, Revision::V2025_11_25, 0).unwrap();
        let other = SessionOwner { principal_uid: "other-uid", ..CODER };
        assert_eq!(sealer.open(id.as_bytes(), other, 0), Err(Foreign));
        let elsewhere = SessionOwner { server_uid: "mail-uid", ..CODER };
        assert_eq!(sealer.open(id.as_bytes(), elsewhere, 0), Err(Foreign));
        assert_eq!(SessionSealer::new(&[8; 32]).unwrap().open(id.as_bytes(), CODER, 0), Err(Foreign));
    }

    #[test]
    fn a_changed_id_is_refused_whatever_was_changed() {
        let sealer = SessionSealer::new(&[7; 32]).unwrap();
        let id = sealer.seal(CODER, Revision::V2025_11_25, 0).unwrap().into_bytes();
        for position in 0..id.len() {
            let mut changed = id.clone();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            assert_eq!(sealer.open(&changed, CODER, 0), Err(Foreign), "at {position}");
        }
        for garbage in [&b""[..], b"x", &id[1..], &[b'A'; 4096], b"\xff\xfe"] {
            assert_eq!(sealer.open(garbage, CODER, 0), Err(Foreign));
        }
    }
}
