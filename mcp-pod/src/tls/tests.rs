//! Handshakes between a real rustls client and server, in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair, SanType,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;

const GATEWAY: &str = "spiffe://mcp-fleet.dev/tenant/t-1/gateway";
const SERVER: &str = "spiffe://mcp-fleet.dev/tenant/t-1/server/s-1";

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn write_identity(dir: &Path, ca: &CertifiedIssuer<'static, KeyPair>, uris: &[&str], usages: &[Eku]) {
    let mut params = CertificateParams::new(vec!["gateway.acme-mcp.svc".to_owned()]).unwrap();
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
    }
    params.extended_key_usages = usages.to_vec();
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, ca).unwrap();
    std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
}

fn identity(
    ca: &CertifiedIssuer<'static, KeyPair>,
    uris: &[&str],
    usages: &[Eku],
) -> (tempfile::TempDir, Arc<Identity>) {
    let dir = tempfile::tempdir().unwrap();
    write_identity(dir.path(), ca, uris, usages);
    let identity = Identity::load(dir.path()).unwrap();
    (dir, identity)
}

/// Runs the handshake in memory, until both ends are done or one fails.
fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(Arc::clone(client), peer_name()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    for _ in 0..20 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake did not complete");
    Ok(())
}

fn mutual(client: &Arc<Identity>, server: &Arc<Identity>) -> Result<(), rustls::Error> {
    let client = client_config(Arc::clone(client), SERVER).unwrap();
    let server = server_config_mutual(Arc::clone(server), GATEWAY).unwrap();
    handshake(&client, &server)
}

#[test]
fn gateway_and_shim_accept_each_other() {
    let ca = ca();
    let (_g, gateway) = identity(&ca, &[GATEWAY], &[Eku::ServerAuth, Eku::ClientAuth]);
    let (_s, shim) = identity(&ca, &[SERVER], &[Eku::ServerAuth]);
    mutual(&gateway, &shim).unwrap();
}

#[test]
fn a_client_certificate_of_our_ca_is_not_enough() {
    let ca = ca();
    let (_s, shim) = identity(&ca, &[SERVER], &[Eku::ServerAuth]);
    let all = [Eku::ServerAuth, Eku::ClientAuth];
    let other_ca = self::ca();
    for (what, issuer, uris, usages) in [
        ("no URI", &ca, &[][..], &all[..]),
        ("another tenant's gateway", &ca, &["spiffe://mcp-fleet.dev/tenant/t-2/gateway"], &all),
        ("a longer name", &ca, &["spiffe://mcp-fleet.dev/tenant/t-1/gateway/x"], &all),
        ("two names", &ca, &[GATEWAY, SERVER], &all),
        ("no client usage", &ca, &[GATEWAY], &[Eku::ServerAuth]),
        ("no usage at all", &ca, &[GATEWAY], &[]),
        ("another CA", &other_ca, &[GATEWAY], &all),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write_identity(dir.path(), issuer, uris, usages);
        // The client always trusts our CA, so that only the server can fail the handshake.
        std::fs::write(dir.path().join("ca.crt"), ca.pem()).unwrap();
        let client = Identity::load(dir.path()).unwrap();
        assert!(mutual(&client, &shim).is_err(), "{what}");
    }
}

#[test]
fn a_server_certificate_of_our_ca_is_not_enough() {
    let ca = ca();
    let (_g, gateway) = identity(&ca, &[GATEWAY], &[Eku::ServerAuth, Eku::ClientAuth]);
    for (what, uris, usages) in [
        ("another server", &["spiffe://mcp-fleet.dev/tenant/t-1/server/s-2"][..], &[Eku::ServerAuth][..]),
        ("the gateway itself", &[GATEWAY][..], &[Eku::ServerAuth, Eku::ClientAuth][..]),
        ("no server usage", &[SERVER][..], &[Eku::ClientAuth][..]),
        ("no usage at all", &[SERVER][..], &[][..]),
    ] {
        let (_s, shim) = identity(&ca, uris, usages);
        assert!(mutual(&gateway, &shim).is_err(), "{what}");
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let ca = ca();
    let (_s, shim) = identity(&ca, &[SERVER], &[Eku::ServerAuth]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let anonymous = ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::ExpectServer::new(Arc::clone(&shim), SERVER)))
        .with_no_client_auth();
    let server = server_config_mutual(shim, GATEWAY).unwrap();
    assert!(handshake(&Arc::new(anonymous), &server).is_err());
}

#[test]
fn new_files_are_used_without_a_new_config_but_broken_ones_are_not() {
    let old = ca();
    let new = ca();
    let (gateway_dir, gateway) = identity(&old, &[GATEWAY], &[Eku::ServerAuth, Eku::ClientAuth]);
    let (shim_dir, shim) = identity(&old, &[SERVER], &[Eku::ServerAuth]);
    let client = client_config(Arc::clone(&gateway), SERVER).unwrap();
    let server = server_config_mutual(Arc::clone(&shim), GATEWAY).unwrap();
    handshake(&client, &server).unwrap();
    assert!(!shim.reload().unwrap());

    write_identity(shim_dir.path(), &new, &[SERVER], &[Eku::ServerAuth]);
    assert!(shim.reload().unwrap());
    assert!(handshake(&client, &server).is_err(), "the gateway does not know the shim's new CA");
    write_identity(gateway_dir.path(), &new, &[GATEWAY], &[Eku::ServerAuth, Eku::ClientAuth]);
    assert!(gateway.reload().unwrap());
    handshake(&client, &server).unwrap();

    // A key that does not belong to the certificate: the old pair stays in use.
    std::fs::write(shim_dir.path().join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(shim.reload().is_err());
    handshake(&client, &server).unwrap();
}
