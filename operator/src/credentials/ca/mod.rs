//! The operator's certificate authority: one key in the Secret `mcp-fleet-ca`. The operator creates it once and never
//! replaces it, also if the Secret is lost ([`fleet`]).

mod fleet;
mod guard;
mod load;
mod secret;

pub(crate) use fleet::ACCEPT;
pub(crate) use guard::{Guard, reference};
pub(crate) use load::load;
pub(crate) use secret::{SecretError, TlsSecret, ensure_tls};

/// Name of the Secret with the authority and of the `ConfigMap` with its fingerprint, in the operator's namespace.
pub(crate) const CA_NAME: &str = "mcp-fleet-ca";
