//! TLS between our own programs, and towards agents.
//!
//! - [`Identity`]: certificate, key and CA from a mounted Secret, read again when the files change; every config made
//!   from it follows without being rebuilt.
//! - [`server_config_plain`]: what agents connect to. No client certificate; they bring a bearer token.
//! - [`server_config_mutual`], [`client_config`]: gateway and shim. A chain to our CA is not enough: the peer has to
//!   carry exactly the URI SAN that is expected of it, and the extended key usage of its role.

mod config;
mod identity;
mod verify;

#[cfg(test)]
mod tests;

pub use config::{client_config, peer_name, server_config_mutual, server_config_plain};
pub use identity::Identity;

/// Why an identity or a configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the Secret could not be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not PEM of the right kind.
    #[error("failed to parse {path}: {detail}")]
    Parse {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Certificate, key and CA do not go together, or rustls refuses them.
    #[error("failed to use the certificate")]
    Rustls(#[from] rustls::Error),
}
