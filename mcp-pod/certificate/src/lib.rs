//! Checks the certificate and key under which a gateway serves a public name. The operator checks them before it gives
//! them to a gateway, and the gateway before it serves them, with the same code. Start at [`check`].

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::public_key::PublicKey;

/// Longest `tls.crt` and longest `tls.key`, in bytes of PEM.
pub const MAX_PEM: usize = 64 * 1024;
/// Most certificates in a chain.
pub const MAX_CHAIN: usize = 10;
/// Fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2048;
/// Names of a certificate that an error lists.
const MAX_NAMES: usize = 5;

/// A certificate and its key that may be served for a host name.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The chain and the key, as rustls uses them.
    pub key: Arc<CertifiedKey>,
    /// SHA-256 of the leaf certificate.
    pub fingerprint: [u8; 32],
    /// When the leaf certificate becomes valid, Unix seconds.
    pub not_before: i64,
    /// When the leaf certificate ends, Unix seconds.
    pub not_after: i64,
}

impl Checked {
    /// Whether the leaf certificate is valid at a time, in Unix seconds.
    pub const fn is_valid_at(&self, now: i64) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Why a certificate or its key must not be served for a host name. No text has anything of the key in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A file is longer than [`MAX_PEM`].
    #[error("{0} is longer than {MAX_PEM} bytes; leave out what is not part of the chain")]
    TooLong(&'static str),
    /// A file is not PEM.
    #[error("{0} is not valid PEM; put the certificate and its key there in PEM")]
    NotPem(&'static str),
    /// There is no certificate.
    #[error("tls.crt contains no certificate; put the chain there, the certificate of the host name first")]
    NoCertificate,
    /// There are more than [`MAX_CHAIN`] certificates.
    #[error("tls.crt contains more than {MAX_CHAIN} certificates; leave out what is not part of the chain")]
    LongChain,
    /// A certificate of the chain cannot be read.
    #[error("certificate {0} of tls.crt cannot be read; issue it again")]
    Malformed(usize),
    /// The key has a type or a size that is not supported.
    #[error("the key is not supported; use RSA with at least {MIN_RSA_BITS} bits, ECDSA on P-256 or P-384, or Ed25519")]
    Key,
    /// The key is another certificate's.
    #[error("tls.key does not belong to the first certificate of tls.crt; store the pair again")]
    KeyMismatch,
    /// The certificate is an authority's.
    #[error("the first certificate of tls.crt is that of an authority; put the certificate of the host name first")]
    Authority,
    /// The certificate does not have the host name.
    #[error("the certificate is not for {hostname} but for {names}; issue one with {hostname} as a DNS name")]
    Name {
        /// The host name.
        hostname: String,
        /// DNS names of the certificate, for people.
        names: String,
    },
    /// The certificate must not be used by servers.
    #[error("the certificate's extended key usage has no server authentication; issue one that has")]
    Usage,
    /// The certificate is not valid yet.
    #[error("the certificate is valid only from {0}; check the clocks, or issue one that is valid now")]
    NotYetValid(Timestamp),
    /// The certificate has ended.
    #[error("the certificate ended at {0}; renew it")]
    Ended(Timestamp),
}

/// Checks whether a chain and a key, in PEM, may be served for a host name in lower case. `now` is in Unix seconds.
///
/// The name has to be a `dNSName`; the common name is ignored (RFC 6125, section 6.4.4, and RFC 9525). A wildcard covers
/// one label. Whether clients trust the issuer is not known here.
pub fn check(chain: &[u8], key: &[u8], hostname: &str, now: i64) -> Result<Checked, Refusal> {
    let chain = certificates(chain)?;
    let key = private_key(key)?;
    for (index, certificate) in chain.iter().enumerate() {
        parse(certificate).ok_or(Refusal::Malformed(index + 1))?;
    }
    let leaf = chain.first().ok_or(Refusal::NoCertificate)?;
    let parsed = parse(leaf).ok_or(Refusal::Malformed(1))?;
    let (fingerprint, validity) = (Sha256::digest(leaf).into(), parsed.validity());
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if !is_supported(&parsed) {
        return Err(Refusal::Key);
    }
    if parsed.is_ca() {
        return Err(Refusal::Authority);
    }
    check_name(leaf, &parsed, hostname)?;
    // An extension that cannot be read, or is there twice, allows nothing.
    let usage = parsed.extended_key_usage().map_err(|_| Refusal::Usage)?;
    if usage.is_some_and(|usage| !usage.value.server_auth) {
        return Err(Refusal::Usage);
    }
    if now < not_before {
        return Err(Refusal::NotYetValid(time(not_before)));
    }
    if now > not_after {
        return Err(Refusal::Ended(time(not_after)));
    }
    // Fails if the key does not belong to the certificate.
    let key = CertifiedKey::from_der(chain.clone(), key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Refusal::KeyMismatch,
        _ => Refusal::Key,
    })?;
    key.keys_match().map_err(|_| Refusal::KeyMismatch)?;
    Ok(Checked { key: Arc::new(key), fingerprint, not_before, not_after })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    if pem.len() > MAX_PEM {
        return Err(Refusal::TooLong("tls.crt"));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| Refusal::NotPem("tls.crt"))?;
    match found.len() {
        0 => Err(Refusal::NoCertificate),
        1..=MAX_CHAIN => Ok(found),
        _ => Err(Refusal::LongChain),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Refusal> {
    if pem.len() > MAX_PEM {
        return Err(Refusal::TooLong("tls.key"));
    }
    // The error may quote a line of the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| Refusal::NotPem("tls.key"))
}

/// Parses one certificate, without anything after it.
fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    }
}

fn is_supported(certificate: &X509Certificate<'_>) -> bool {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => rsa.key_size() >= MIN_RSA_BITS,
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384)
        }
        _ => key.algorithm.algorithm == OID_SIG_ED25519,
    }
}

/// Compares the name as a client does that uses webpki.
fn check_name(leaf: &CertificateDer<'_>, parsed: &X509Certificate<'_>, hostname: &str) -> Result<(), Refusal> {
    let end_entity = ParsedCertificate::try_from(leaf).map_err(|_| Refusal::Malformed(1))?;
    let is_named = ServerName::try_from(hostname)
        .ok()
        .is_some_and(|name| matches!(name, ServerName::DnsName(_)) && verify_server_name(&end_entity, &name).is_ok());
    if is_named {
        return Ok(());
    }
    Err(Refusal::Name { hostname: hostname.to_owned(), names: names(parsed) })
}

/// Returns the first DNS names of a certificate, for people.
fn names(certificate: &X509Certificate<'_>) -> String {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let all = extension.iter().flat_map(|extension| &extension.value.general_names);
    let dns = all.filter_map(|name| match name {
        GeneralName::DNSName(name) if name.bytes().all(|byte| byte.is_ascii_graphic()) => Some(*name),
        _ => None,
    });
    let first: Vec<&str> = dns.take(MAX_NAMES).collect();
    if first.is_empty() { "no DNS name".to_owned() } else { first.join(", ") }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

/// Returns the crypto provider of all checks.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}
