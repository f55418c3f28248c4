//! TLS between gateway and shim, between gateways of one tenant, and between agents and gateway.
//!
//! - [`Identity`]: certificate, key and CA from a mounted Secret. It is reloaded when the files change, and
//!   configurations made from it use the new files at once.
//! - [`server_config_plain`]: for agents. They authenticate with a bearer token, not with a certificate.
//! - [`server_config_by_name`]: the same, with the certificates of public names ([`PublicNames`]).
//! - [`server_config_mutual`], [`client_config`]: for gateway and shim, and between gateways of one tenant. A certificate
//!   chain to the CA is not enough: the peer's certificate must have exactly the expected URI SAN, and the extended key
//!   usage of its role.

mod config;
mod identity;
mod public;
mod verify;

#[cfg(test)]
mod tests;

pub use config::{client_config, peer_name, server_config_by_name, server_config_mutual, server_config_plain};
pub use identity::Identity;
pub use public::{PublicNames, Served};

/// Why an identity could not be loaded or a configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the Secret could not be read.
    #[error("failed to read {path}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    /// A file is not PEM with the expected content.
    #[error("failed to parse {path}: {detail}")]
    Parse { path: std::path::PathBuf, detail: String },
    /// Certificate and key do not match, or rustls does not accept one of the files.
    #[error("failed to use the certificate")]
    Rustls(#[from] rustls::Error),
}
