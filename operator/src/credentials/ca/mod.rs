//! The operator's certificate authority: one key in the Secret `mcp-fleet-ca`. The operator creates it once and never
//! replaces it, also if the Secret is lost ([`fleet`]). It signs the serving certificates of the operator and the gateways, and the certificates with which
//! gateways and shims authenticate each other.
//!
//! A valid chain alone does not identify a peer inside a tenant: peers also compare an exact URI name, which contains
//! the tenant's UID and the role.

mod authority;
mod fleet;
mod guard;
mod key_id;
mod leaf;
mod load;
mod secret;

pub(crate) use authority::{Authority, CaError, LeafRequest};
pub(crate) use fleet::ACCEPT;
pub(crate) use guard::{Guard, reference};
pub(crate) use load::load;
pub(crate) use secret::{SecretError, TlsSecret, ensure_tls};

/// Name of the Secret with the authority and of the `ConfigMap` with its fingerprint, in the operator's namespace.
pub(crate) const CA_NAME: &str = "mcp-fleet-ca";

/// Returns the URI name of a tenant's gateway.
pub(crate) fn gateway_identity(tenant_uid: &str) -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{tenant_uid}/gateway")
}

/// Returns the URI name of a server's shim.
pub(crate) fn server_identity(tenant_uid: &str, server_uid: &str) -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{tenant_uid}/server/{server_uid}")
}
