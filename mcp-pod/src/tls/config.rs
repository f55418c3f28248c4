//! The TLS configurations.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use super::TlsError;
use super::identity::{Identity, provider};
use super::public::{BySni, PublicNames};
use super::verify::{ExpectClient, ExpectServer};

/// Returns the gateway's configuration for agents, like [`server_config_plain`]. The certificates of public names are
/// served to clients that ask for these names, and `identity` to all others.
pub fn server_config_by_name(identity: Arc<Identity>, public: Arc<PublicNames>) -> Result<Arc<ServerConfig>, TlsError> {
    plain(Arc::new(BySni { fleet: identity, public }))
}

/// Returns the configuration of a server for agents: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no client certificate.
pub fn server_config_plain(identity: Arc<Identity>) -> Result<Arc<ServerConfig>, TlsError> {
    plain(identity)
}

fn plain(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Returns the configuration of a server that accepts one client: the client's certificate must chain to the CA, allow
/// client authentication, and have `expected_client_uri` as its only URI SAN. TLS 1.3 and HTTP/1.1.
pub fn server_config_mutual(identity: Arc<Identity>, expected_client_uri: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = Arc::new(ExpectClient::new(Arc::clone(&identity), expected_client_uri));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // The certificate is not checked when a session is resumed, so a session would survive a change of the CA.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Returns the configuration of a client that accepts one server: the server's certificate must chain to the CA, allow
/// server authentication, and have `expected_server_uri` as its only URI SAN. Its host name is not checked. TLS 1.3 and
/// HTTP/1.1.
pub fn client_config(identity: Arc<Identity>, expected_server_uri: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(ExpectServer::new(Arc::clone(&identity), expected_server_uri));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Returns the server name to pass to rustls with [`client_config`], which ignores it. It is an address, because rustls
/// sends no SNI for addresses.
pub fn peer_name() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}
