//! The operator's certificate authority: one key in the Secret `mcp-fleet-ca`, made once, never replaced by the
//! operator. It signs the serving certificates of operator and gateways, and the certificates with which gateway and
//! shim know each other.
//!
//! Peers inside a tenant are told apart by an exact URI name (tenant UID and role), not by a valid chain alone.

mod authority;
mod key_id;
mod leaf;
mod secret;

pub(crate) use authority::{Authority, CaError, LeafRequest};
pub(crate) use secret::{SecretError, TlsSecret, ensure_tls, load_or_create};

/// The URI name of a tenant's gateway.
pub(crate) fn gateway_identity(tenant_uid: &str) -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{tenant_uid}/gateway")
}

/// The URI name of the shim of one server.
pub(crate) fn server_identity(tenant_uid: &str, server_uid: &str) -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{tenant_uid}/server/{server_uid}")
}
