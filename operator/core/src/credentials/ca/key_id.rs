//! Key identifiers in certificates (RFC 5280, 4.2.1.1 and 4.2.1.2).

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

/// Returns the key identifier of the certificate's issuer.
pub(super) fn authority_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    })
}

/// Returns the key identifier of the certificate itself.
pub(super) fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}
