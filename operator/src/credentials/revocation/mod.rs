//! Permanent revocations: the highest `revokeIssuedBefore` that each principal ever had.
//!
//! They are stored in one ConfigMap per tenant in the operator's namespace, which tenants cannot access, and not in
//! status: neither a Git revert nor a patched status makes a revoked token valid again.

mod store;

pub(crate) use store::{RevocationError, Revocations, Revoked};
