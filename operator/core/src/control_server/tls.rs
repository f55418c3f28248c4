//! The TLS configuration of the control server.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::credentials::ca::{Authority, CaError, LeafRequest};

/// Why the certificate of the control server could not be created or used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate authority did not issue it.
    #[error(transparent)]
    Certificate(#[from] CaError),
    /// The issued PEM could not be parsed.
    #[error("failed to read the certificate or key of the control server")]
    Pem(#[from] pem::Error),
    /// The TLS library rejected the certificate, the key or the protocol versions.
    #[error("failed to configure TLS of the control server")]
    Config(#[from] rustls::Error),
}

/// Issues a certificate for DNS names and returns a configuration that serves HTTP/2 with it.
///
/// The key never leaves this process, so the certificate is valid as long as the authority. Clients show no
/// certificate: gateways authenticate by token.
pub fn server_config(authority: &Authority, dns: Vec<String>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let request = LeafRequest { dns, uri: None, server: true, client: false };
    let leaf = authority.issue_in_memory(&request, Timestamp::now())?;
    let certificate = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_server_speaks_http_2_with_a_certificate_of_the_authority() {
        let (certificate, key) = Authority::generate(Timestamp::now()).unwrap();
        let authority = Authority::from_pem(&certificate, &key).unwrap();
        let tls = server_config(&authority, vec!["operator.example".to_owned()]).unwrap();
        assert_eq!(tls.alpn_protocols, [b"h2".to_vec()]);
    }
}
