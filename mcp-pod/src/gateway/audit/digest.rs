//! Digests in audit lines: small ones made at once, large ones by the thread that writes, off the way of the call.

use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::Bytes;

use crate::gateway::digest::sha256;

/// Up to this many bytes a digest costs less than handing it over.
const SMALL: usize = 2048;

/// A digest that stands in a line, now or by the time it is written.
#[derive(Clone, Debug)]
pub enum Digest {
    /// Made.
    Made([u8; 32]),
    /// To be made of these bytes.
    Later(Later),
}

/// What is left to do for a line.
#[derive(Clone, Debug)]
pub struct Later {
    bytes: Bytes,
    key: Option<Key>,
}

/// The key under which arguments of calls are digested: one per tenant, so that audit lines of two tenants cannot be
/// compared, and a guess cannot be checked without it.
#[derive(Clone)]
pub struct Key(Arc<hmac::Key>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Derived from the tenant's key, and different from whatever else is.
    pub(crate) fn new(session_key: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, session_key), b"mcp-fleet audit arguments v1");
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())))
    }

    /// The keyed digest of some arguments.
    pub(crate) fn digest(&self, arguments: &[u8]) -> [u8; 32] {
        let mut made = [0; 32];
        made.copy_from_slice(hmac::sign(&self.0, arguments).as_ref());
        made
    }
}

impl Digest {
    /// SHA-256 of a result.
    pub(crate) fn plain(bytes: Bytes) -> Self {
        Later { bytes, key: None }.unless_small()
    }

    /// The keyed digest of arguments.
    pub(crate) fn keyed(bytes: Bytes, key: &Key) -> Self {
        Later { bytes, key: Some(key.clone()) }.unless_small()
    }
}

impl Later {
    fn unless_small(self) -> Digest {
        if self.bytes.len() <= SMALL { Digest::Made(self.make()) } else { Digest::Later(self) }
    }

    /// The digest.
    pub(super) fn make(&self) -> [u8; 32] {
        self.key.as_ref().map_or_else(|| sha256(&self.bytes), |key| key.digest(&self.bytes))
    }

    /// How much memory it holds until then.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// The digits of a digest.
pub(super) fn hex(digest: &[u8; 32]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 64];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    hex
}
