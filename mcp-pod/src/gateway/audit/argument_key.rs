//! The key under which audit lines digest the arguments of calls, with BLAKE3 because arguments can be long
//! (`docs/adr/0006-blake3-in-audit-lines.md`).

/// Key of one tenant. It keeps audit lines of two tenants from being compared, and anybody without the key from testing
/// guesses of the arguments.
#[derive(Clone)]
pub(crate) struct ArgumentKey([u8; 32]);

impl std::fmt::Debug for ArgumentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArgumentKey")
    }
}

impl ArgumentKey {
    /// Derives the key from the tenant's session key, independent of every other key derived from it.
    pub(crate) fn new(session_key: &[u8]) -> Self {
        Self(blake3::derive_key("mcp-fleet audit arguments v2", session_key))
    }

    /// Returns the keyed digest of some arguments.
    pub(crate) fn digest(&self, arguments: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, arguments).as_bytes()
    }
}
