//! The key under which audit lines digest arguments.

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
