//! Decides whether a leaf certificate in a Secret must be renewed. Pure.

use jiff::Timestamp;
use rcgen::KeyPair;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Authority, LEAF_VALIDITY, LeafRequest};
use super::key_id::authority_key_id;

/// Why a leaf certificate is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalReason {
    /// The certificate or key cannot be parsed, or they do not match.
    Unreadable,
    /// Another authority signed the certificate.
    Authority,
    /// The names or usages differ from the requested ones.
    Contents,
    /// Two thirds of the validity have passed.
    Age,
}

/// Returns why the leaf certificate must be renewed; none if it need not be.
pub fn leaf_renewal_reason(
    certificate_pem: &[u8],
    key_pem: &[u8],
    authority: &Authority,
    request: &LeafRequest,
    now: Timestamp,
) -> Option<RenewalReason> {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(certificate_pem) else {
        return Some(RenewalReason::Unreadable);
    };
    let Ok((_, parsed)) = X509Certificate::from_der(&pem.contents) else { return Some(RenewalReason::Unreadable) };
    let key = std::str::from_utf8(key_pem).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    if key.is_none_or(|key| key.public_key_raw() != parsed.public_key().subject_public_key.data.as_ref()) {
        return Some(RenewalReason::Unreadable);
    }
    if authority_key_id(&parsed).as_deref() != Some(authority.key_id()) {
        return Some(RenewalReason::Authority);
    }
    if contents(&parsed).as_ref() != Some(request) {
        return Some(RenewalReason::Contents);
    }
    let renew_from = parsed.validity().not_after.timestamp() - i64::try_from(LEAF_VALIDITY.as_secs() / 3).unwrap_or(0);
    (now.as_second() >= renew_from).then_some(RenewalReason::Age)
}

/// Returns the contents of a certificate; none if it has no names, names of another kind, or no extended key usage.
fn contents(certificate: &X509Certificate<'_>) -> Option<LeafRequest> {
    let mut found = LeafRequest { dns: Vec::new(), uri: None, server: false, client: false };
    for name in &certificate.subject_alternative_name().ok()??.value.general_names {
        match name {
            GeneralName::DNSName(name) => found.dns.push((*name).to_owned()),
            GeneralName::URI(uri) if found.uri.is_none() => found.uri = Some((*uri).to_owned()),
            _ => return None,
        }
    }
    let usage = certificate.extended_key_usage().ok()??.value;
    found.server = usage.server_auth;
    found.client = usage.client_auth;
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn authority(now: Timestamp) -> Authority {
        let (certificate, key) = Authority::generate(now).unwrap();
        Authority::from_pem(&certificate, &key).unwrap()
    }

    fn request() -> LeafRequest {
        LeafRequest {
            dns: vec!["gateway.acme-mcp.svc".into(), "gateway.acme-mcp.svc.cluster.local".into()],
            uri: Some(crate::credentials::ca::gateway_identity("u-1")),
            server: true,
            client: true,
        }
    }

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_leaf_is_renewed_after_two_thirds_of_its_validity() {
        let authority = authority(now());
        let leaf = authority.issue(&request(), now()).unwrap();
        let check = |at| {
            leaf_renewal_reason(leaf.certificate_pem.as_bytes(), leaf.key_pem.as_bytes(), &authority, &request(), at)
        };
        assert_eq!(check(now()), None);
        assert_eq!(check(now() + Duration::from_hours(24 * 20 - 1)), None);
        assert_eq!(check(now() + Duration::from_hours(24 * 20)), Some(RenewalReason::Age));
    }

    #[test]
    fn a_leaf_with_another_name_or_usage_is_renewed() {
        let authority = authority(now());
        let leaf = authority.issue(&request(), now()).unwrap();
        let mut other = request();
        other.uri = Some(crate::credentials::ca::gateway_identity("u-2"));
        let check = |want: &LeafRequest| {
            leaf_renewal_reason(leaf.certificate_pem.as_bytes(), leaf.key_pem.as_bytes(), &authority, want, now())
        };
        assert_eq!(check(&other), Some(RenewalReason::Contents));
        let serve_only = LeafRequest { client: false, ..request() };
        assert_eq!(check(&serve_only), Some(RenewalReason::Contents));
    }

    #[test]
    fn a_leaf_of_another_authority_or_with_another_key_is_renewed() {
        let (ours, theirs) = (authority(now()), authority(now()));
        let leaf = theirs.issue(&request(), now()).unwrap();
        let other_leaf = theirs.issue(&request(), now()).unwrap();
        assert_eq!(
            leaf_renewal_reason(leaf.certificate_pem.as_bytes(), leaf.key_pem.as_bytes(), &ours, &request(), now()),
            Some(RenewalReason::Authority)
        );
        assert_eq!(
            leaf_renewal_reason(
                leaf.certificate_pem.as_bytes(),
                other_leaf.key_pem.as_bytes(),
                &theirs,
                &request(),
                now()
            ),
            Some(RenewalReason::Unreadable)
        );
    }

    #[test]
    fn an_authority_with_the_wrong_key_is_rejected() {
        let (certificate, _) = Authority::generate(now()).unwrap();
        let (_, key) = Authority::generate(now()).unwrap();
        assert!(Authority::from_pem(&certificate, &key).is_err());
    }

    #[test]
    fn the_certificate_of_a_shim_cannot_authenticate_a_client() {
        let authority = authority(now());
        let want = LeafRequest {
            dns: vec![],
            uri: Some(crate::credentials::ca::server_identity("u-1", "s-1")),
            server: true,
            client: false,
        };
        let leaf = authority.issue(&want, now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.certificate_pem.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&pem.contents).unwrap();
        assert!(!parsed.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert_eq!(contents(&parsed), Some(want));
    }
}
