//! Verifiers that accept one peer, by the chain to the CA, the key usage of its role, and its only URI SAN.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;

use super::identity::{Identity, provider};

/// Why a certificate issued by the CA is not accepted as the peer's.
#[derive(Debug, thiserror::Error)]
enum PeerRejection {
    #[error("failed to parse the peer's certificate")]
    Unreadable,
    #[error("the peer's certificate does not have the key usage of its role")]
    KeyUsage,
    #[error("the peer is not {expected}")]
    OtherName { expected: Arc<str> },
}

impl From<PeerRejection> for Error {
    fn from(error: PeerRejection) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

#[derive(Clone, Copy, Debug)]
enum Role {
    Client,
    Server,
}

/// Checks the extended key usage and the URI SAN of a certificate. webpki accepts a certificate without any extended key
/// usage for every role; here the role must be listed. There must be exactly one URI SAN, as SPIFFE X509-SVID §2
/// requires, because a second one could be the name of another workload.
fn check_name_and_usage(certificate: &[u8], expected: &Arc<str>, role: Role) -> Result<(), PeerRejection> {
    let (rest, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| PeerRejection::Unreadable)?;
    if !rest.is_empty() {
        return Err(PeerRejection::Unreadable);
    }
    let usage =
        parsed.extended_key_usage().map_err(|_| PeerRejection::Unreadable)?.ok_or(PeerRejection::KeyUsage)?.value;
    let usable = match role {
        Role::Client => usage.client_auth,
        Role::Server => usage.server_auth,
    };
    if !usable || usage.any {
        return Err(PeerRejection::KeyUsage);
    }
    match only_uri(&parsed).map_err(|_| PeerRejection::Unreadable)? {
        Some(uri) if uri == &**expected => Ok(()),
        _ => Err(PeerRejection::OtherName { expected: Arc::clone(expected) }),
    }
}

/// Returns the URI SAN of a certificate that has exactly one.
pub(super) fn only_uri<'a>(certificate: &X509Certificate<'a>) -> Result<Option<&'a str>, X509Error> {
    let names = certificate.subject_alternative_name()?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    Ok(uris.next().filter(|_| uris.next().is_none()))
}

/// Accepts one client.
#[derive(Debug)]
pub(super) struct ExpectClient {
    identity: Arc<Identity>,
    uri: Arc<str>,
}

impl ExpectClient {
    pub(super) fn new(identity: Arc<Identity>, uri: &str) -> Self {
        Self { identity, uri: uri.into() }
    }
}

impl ClientCertVerifier for ExpectClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Built for each handshake, because the roots may have changed. Handshakes are rare: one per pooled connection.
        let roots = Arc::clone(&self.identity.current().roots);
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let verified = chain.verify_client_cert(end_entity, intermediates, now)?;
        check_name_and_usage(end_entity, &self.uri, Role::Client)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts one server.
#[derive(Debug)]
pub(super) struct ExpectServer {
    identity: Arc<Identity>,
    uri: Arc<str>,
}

impl ExpectServer {
    pub(super) fn new(identity: Arc<Identity>, uri: &str) -> Self {
        Self { identity, uri: uri.into() }
    }
}

impl ServerCertVerifier for ExpectServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = Arc::clone(&self.identity.current().roots);
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, intermediates, now, algorithms)?;
        check_name_and_usage(end_entity, &self.uri, Role::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
