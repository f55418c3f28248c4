//! The authority's key, and the certificates that it signs. No I/O; the current time is an argument.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long the authority's own certificate is valid. This is long, because the authority is not rotated yet.
const CA_VALIDITY: Duration = Duration::from_hours(24 * 3650);

/// How long a leaf certificate in a Secret is valid.
pub(super) const LEAF_VALIDITY: Duration = Duration::from_hours(24 * 30);

/// How far a certificate's validity starts in the past, for pods whose clock is behind.
const BACKDATE: Duration = Duration::from_mins(5);

/// Why a certificate could not be created or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The key or certificate could not be created or signed.
    #[error("failed to create a certificate")]
    Create(#[from] rcgen::Error),
    /// The authority's certificate is not PEM, not X.509, or does not match the key.
    #[error("failed to read the certificate of the authority: {0}")]
    Read(&'static str),
}

/// The certificate authority.
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
    /// SHA-256 of the certificate, in hex.
    fingerprint: String,
    issuer: Issuer<'static, KeyPair>,
    key_id: Vec<u8>,
    not_after: i64,
}

/// Contents of a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRequest {
    /// DNS names, in order.
    pub dns: Vec<String>,
    /// URI name that peers compare; none if no peer does.
    pub uri: Option<String>,
    /// Whether the certificate may authenticate a server.
    pub server: bool,
    /// Whether the certificate may authenticate a client.
    pub client: bool,
}

/// A leaf certificate with its key.
#[derive(Clone)]
pub struct Leaf {
    /// Certificate, PEM.
    pub certificate_pem: String,
    /// Key, PEM (PKCS #8).
    pub key_pem: String,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Authority {
    /// Generates an authority. Returns its certificate and key, both PEM.
    pub fn generate(now: Timestamp) -> Result<(String, String), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mcp-fleet");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, now.as_second().saturating_add_unsigned(CA_VALIDITY.as_secs()));
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Parses an authority.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem)?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
            .map_err(|_| CaError::Read("it is not PEM; restore the Secret from a backup"))?;
        let (_, parsed) = X509Certificate::from_der(&pem.contents)
            .map_err(|_| CaError::Read("it is not X.509; restore the Secret from a backup"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CaError::Read("it does not match the key; restore the Secret from a backup"));
        }
        let key_id = super::key_id::subject_key_id(&parsed).ok_or(CaError::Read("it has no key id"))?;
        let not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        let fingerprint = Sha256::digest(&pem.contents).iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let (certificate_pem, key_pem) = (certificate_pem.to_owned(), key_pem.to_owned());
        Ok(Self { certificate_pem, key_pem, fingerprint, issuer, key_id, not_after })
    }

    /// Returns the certificate that clients trust, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the authority's key, PEM (PKCS #8).
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Returns the SHA-256 of the authority's certificate, in hex, as `openssl x509 -fingerprint -sha256` prints it, but in
    /// lower case and without colons.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Returns the key identifier, which leaf certificates contain as their issuer's.
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// Issues a leaf certificate for a Secret, valid for 30 days.
    pub fn issue(&self, request: &LeafRequest, now: Timestamp) -> Result<Leaf, CaError> {
        self.issue_until(request, now, now.as_second().saturating_add_unsigned(LEAF_VALIDITY.as_secs()))
    }

    /// Issues a leaf certificate for this process only, valid as long as the authority.
    pub fn issue_in_memory(&self, request: &LeafRequest, now: Timestamp) -> Result<Leaf, CaError> {
        self.issue_until(request, now, self.not_after)
    }

    fn issue_until(&self, request: &LeafRequest, now: Timestamp, until: i64) -> Result<Leaf, CaError> {
        let LeafRequest { dns, uri, server, client } = request;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // The names are in the SAN. A common name is limited to 64 characters, which our names can exceed.
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in dns {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if *server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if *client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, until.min(self.not_after));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, until: i64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let from = now.as_second().saturating_sub_unsigned(BACKDATE.as_secs());
    params.not_before = epoch + Duration::from_secs(u64::try_from(from).unwrap_or(0));
    params.not_after = epoch + Duration::from_secs(u64::try_from(until).unwrap_or(0));
}
