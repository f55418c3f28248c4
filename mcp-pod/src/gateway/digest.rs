//! Digests for audit lines and memories.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The key under which arguments of calls are digested: one per tenant, so that audit lines of two tenants cannot be
/// compared, and a guess cannot be checked without it.
pub(crate) struct AuditKey(hmac::Key);

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditKey")
    }
}

impl AuditKey {
    /// Derived from the tenant's key, and different from whatever else is.
    pub(crate) fn new(session_key: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, session_key), b"mcp-fleet audit arguments v1");
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The keyed digest of some arguments.
    pub(crate) fn digest(&self, arguments: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, arguments).as_ref());
        out
    }
}
