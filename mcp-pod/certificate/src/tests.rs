#![allow(clippy::unwrap_used, clippy::panic)]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Usage,
    IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SignatureAlgorithm,
};

use super::*;

const NAME: &str = "mcp.example.com";

fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Returns a chain of one certificate, and its key.
fn pair(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    signed(names, change, &KeyPair::generate().unwrap())
}

fn signed(names: &[&str], change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    (params.self_signed(key).unwrap().pem(), key.serialize_pem())
}

fn with_algorithm(algorithm: &'static SignatureAlgorithm) -> Result<Checked, Refusal> {
    let (chain, key) = signed(&[NAME], |_| {}, &KeyPair::generate_for(algorithm).unwrap());
    check(chain.as_bytes(), key.as_bytes(), NAME, now())
}

fn refusal(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Option<Refusal> {
    let (chain, key) = pair(names, change);
    check(chain.as_bytes(), key.as_bytes(), NAME, now()).err()
}

#[test]
fn a_certificate_for_the_name_is_accepted_with_every_supported_key() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &rcgen::PKCS_RSA_SHA256] {
        let checked = with_algorithm(algorithm).unwrap();
        assert!(checked.is_valid_at(now()) && !checked.is_valid_at(checked.not_after + 1));
    }
    assert_eq!(with_algorithm(&PKCS_ECDSA_P521_SHA512).unwrap_err(), Refusal::Key);
}

#[test]
fn only_dns_names_count_and_a_wildcard_covers_one_label() {
    assert_eq!(refusal(&[NAME, "other.example.com"], |_| {}), None);
    assert_eq!(refusal(&["*.example.com"], |_| {}), None);
    for names in [&["other.example.com"][..], &["*.com"], &["*.mcp.example.com"], &["example.com"], &[]] {
        let common_name = |params: &mut CertificateParams| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, NAME);
        };
        let Some(Refusal::Name { hostname, names: listed }) = refusal(names, common_name) else { panic!("{names:?}") };
        assert_eq!(hostname, NAME);
        assert_eq!(listed, if names.is_empty() { "no DNS name".to_owned() } else { names.join(", ") });
    }
}

#[test]
fn an_address_is_no_name() {
    let (chain, key) = pair(&["192.0.2.1"], |_| {});
    assert!(matches!(check(chain.as_bytes(), key.as_bytes(), "192.0.2.1", now()), Err(Refusal::Name { .. })));
}

#[test]
fn a_certificate_that_clients_would_refuse_is_refused() {
    let usages = |usages: Vec<Usage>| refusal(&[NAME], |params| params.extended_key_usages = usages);
    assert_eq!(usages(vec![Usage::ServerAuth, Usage::ClientAuth]), None);
    assert_eq!(usages(vec![Usage::ClientAuth]), Some(Refusal::Usage));
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(refusal(&[NAME], authority), Some(Refusal::Authority));
}

#[test]
fn a_certificate_is_accepted_only_while_it_is_valid() {
    let (chain, key) = pair(&[NAME], |params| {
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 2, 1);
    });
    let at = |text: &str| {
        let now = text.parse::<Timestamp>().unwrap().as_second();
        check(chain.as_bytes(), key.as_bytes(), NAME, now).map(|_| ())
    };
    let (from, until) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    assert_eq!(at("2025-12-31T23:59:59Z"), Err(Refusal::NotYetValid(from.parse().unwrap())));
    assert_eq!((at(from), at(until)), (Ok(()), Ok(())));
    assert_eq!(at("2026-02-01T00:00:01Z"), Err(Refusal::Ended(until.parse().unwrap())));
}

#[test]
fn key_and_certificate_have_to_belong_together() {
    let ((chain, _), (_, other)) = (pair(&[NAME], |_| {}), pair(&[NAME], |_| {}));
    assert_eq!(check(chain.as_bytes(), other.as_bytes(), NAME, now()).unwrap_err(), Refusal::KeyMismatch);
}

#[test]
fn the_certificate_of_the_name_is_the_first_of_a_chain_that_has_an_end() {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap().pem();
    let checked = |chain: &str| check(chain.as_bytes(), key.serialize_pem().as_bytes(), NAME, now());
    assert_eq!(checked(&(leaf.clone() + &issuer.pem())).unwrap().key.cert.len(), 2);
    assert_eq!(checked(&(issuer.pem() + &leaf)).unwrap_err(), Refusal::Authority);
    assert!(checked(&(leaf.clone() + &issuer.pem().repeat(9))).is_ok());
    assert_eq!(checked(&(leaf + &issuer.pem().repeat(10))).unwrap_err(), Refusal::LongChain);
}

#[test]
fn files_that_are_no_pair_are_refused_without_quoting_them() {
    let (chain, key) = pair(&[NAME], |_| {});
    let checked = |chain: &str, key: &str| check(chain.as_bytes(), key.as_bytes(), NAME, now()).unwrap_err();
    assert_eq!(checked("", &key), Refusal::NoCertificate);
    assert_eq!(
        checked("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", &key),
        Refusal::NotPem("tls.crt")
    );
    assert_eq!(checked("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key), Refusal::Malformed(1));
    assert_eq!(checked(&chain, ""), Refusal::NotPem("tls.key"));
    assert_eq!(checked(&" ".repeat(MAX_PEM + 1), &key), Refusal::TooLong("tls.crt"));
    assert_eq!(checked(&chain, &" ".repeat(MAX_PEM + 1)), Refusal::TooLong("tls.key"));
    let broken = key.replace("-----END", "-----EN");
    assert!(!checked(&chain, &broken).to_string().contains(&key[40..60]));
}
