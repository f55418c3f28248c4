//! Digests for audit lines and memories.

use aws_lc_rs::digest::{SHA256, digest};

/// SHA-256, for what is short.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// BLAKE3, for what can be long: `docs/adr/0006-blake3-in-audit-lines.md`.
pub(crate) fn blake3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The key under which arguments of calls are digested: one per tenant, so that audit lines of two tenants cannot be
/// compared, and a guess cannot be checked without it.
pub(crate) struct AuditKey([u8; 32]);

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditKey")
    }
}

impl AuditKey {
    /// Derived from the tenant's key, and different from whatever else is.
    pub(crate) fn new(session_key: &[u8]) -> Self {
        Self(blake3::derive_key("mcp-fleet audit arguments v2", session_key))
    }

    /// The keyed digest of some arguments.
    pub(crate) fn digest(&self, arguments: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, arguments).as_bytes()
    }
}
