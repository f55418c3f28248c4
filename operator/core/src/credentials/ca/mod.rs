//! The certificate authority of a fleet. It signs the serving certificates of the operator and the gateways, and the
//! certificates with which gateways and shims authenticate each other.
//!
//! A valid chain alone does not identify a peer inside a tenant: peers also compare an exact URI name, which contains
//! the tenant's UID and the role.

mod authority;
mod key_id;
mod leaf;

pub use authority::{Authority, CaError, LeafRequest};
pub use leaf::{RenewalReason, leaf_renewal_reason};

/// Returns the URI name of a tenant's gateway.
pub fn gateway_identity(tenant_uid: &str) -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{tenant_uid}/gateway")
}

/// Returns the URI name of a server's shim.
pub fn server_identity(tenant_uid: &str, server_uid: &str) -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{tenant_uid}/server/{server_uid}")
}
