//! Certificates and tokens for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcp_pod::tls::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use serde_json::json;

use super::policy::{AUDIENCE, CODER, ISSUER};

pub(crate) const GATEWAY_URI: &str = "spiffe://mcp-fleet.dev/tenant/t-1/gateway";
pub(crate) const SERVER_URI: &str = "spiffe://mcp-fleet.dev/tenant/t-1/server/files-uid";

type Ca = CertifiedIssuer<'static, KeyPair>;

/// The identities that the test's CA signed, and the tenant's key for tokens.
pub(crate) struct Pki {
    pub(crate) gateway: Arc<Identity>,
    pub(crate) shim: Arc<Identity>,
    ca: Ca,
    signing: KeyPair,
    dirs: [tempfile::TempDir; 2],
}

/// Claims and header fields of a token. The default is a valid token.
#[derive(Clone, Copy)]
pub(crate) struct Token {
    pub(crate) principal: &'static str,
    pub(crate) tenant: &'static str,
    pub(crate) audience: &'static str,
    pub(crate) issuer: &'static str,
    /// Seconds from now.
    pub(crate) issued: i64,
    /// Seconds from now.
    pub(crate) expires: i64,
    pub(crate) typ: &'static str,
    pub(crate) kid: &'static str,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            principal: CODER,
            tenant: "t-1",
            audience: AUDIENCE,
            issuer: ISSUER,
            issued: -10,
            expires: 3600,
            typ: "at+jwt",
            kid: "key-1",
        }
    }
}

/// Returns the current time in Unix seconds.
pub(crate) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the name of its leaves, OpenSSL would take them for self-signed.
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (gateway_dir, gateway) = identity(&ca, GATEWAY_URI, &[Eku::ServerAuth, Eku::ClientAuth]);
        let (shim_dir, shim) = identity(&ca, SERVER_URI, &[Eku::ServerAuth]);
        let signing = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self { gateway, shim, ca, signing, dirs: [gateway_dir, shim_dir] }
    }

    /// Returns an identity with this name, which can be a client and a server.
    pub(crate) fn identity(&self, uri: &str) -> Arc<Identity> {
        identity(&self.ca, uri, &[Eku::ServerAuth, Eku::ClientAuth]).1
    }

    /// Returns the directory of the gateway's certificate.
    pub(crate) fn gateway_dir(&self) -> &Path {
        self.dirs[0].path()
    }

    /// Returns the directory of the certificate of public names, which need not exist.
    pub(crate) fn public_dir(&self) -> PathBuf {
        self.gateway_dir().join("public")
    }

    /// Returns the directory of the shim's certificate.
    pub(crate) fn shim_dir(&self) -> &Path {
        self.dirs[1].path()
    }

    /// Returns the public point of the token key.
    pub(crate) fn point(&self) -> Vec<u8> {
        self.signing.der_bytes().to_vec()
    }

    /// Signs a token with the tenant's key, whatever its claims are.
    pub(crate) fn token(&self, token: Token) -> String {
        let Token { principal, tenant, audience, issuer, issued, expires, typ, kid } = token;
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(kid.to_owned());
        let claims = json!({
            "iss": issuer, "aud": audience, "sub": sub(principal), "jti": "j", "iat": now() + issued, "exp": now() + expires,
            "mcp_fleet": {"principal": principal, "tenant": tenant, "serial": 1},
        });
        let key = EncodingKey::from_ec_der(&self.signing.serialize_der());
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}

fn sub(principal: &str) -> String {
    format!("acme/{}", principal.trim_end_matches("-uid"))
}

fn identity(ca: &Ca, uri: &str, usages: &[Eku]) -> (tempfile::TempDir, Arc<Identity>) {
    // Not below /tmp, because every tool server has a private /tmp.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    write(dir.path(), ca, uri, usages);
    let identity = Identity::load(dir.path()).unwrap();
    (dir, identity)
}

fn write(dir: &Path, ca: &Ca, uri: &str, usages: &[Eku]) {
    let mut params = CertificateParams::new(vec!["gateway.acme-mcp.svc".to_owned(), "localhost".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = usages.to_vec();
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, ca).unwrap();
    std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
}
