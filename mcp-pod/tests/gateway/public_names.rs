//! Public names: which certificate a client gets, and which tokens are accepted.

use std::net::Ipv4Addr;
use std::path::Path;

use http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;
use serde_json::json;

use crate::support::{TestGateway, Token, modern, tls_for};

const NAME: &str = "mcp.example.com";
const FORMER: &str = "old.example.com";

/// An authority that the fleet does not know.
struct PublicCa(CertifiedIssuer<'static, KeyPair>);

impl PublicCa {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Puts a certificate for these names into a folder. Returns it.
    fn issue(&self, dir: &Path, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    /// Returns the leaf that the gateway serves for a name, if this authority issued it.
    async fn leaf(&self, gateway: &TestGateway, name: &'static str) -> Option<CertificateDer<'static>> {
        let from = (Ipv4Addr::LOCALHOST, gateway.address);
        let stream = tls_for(name, self.0.der().clone(), from, &[]).await.ok()?;
        Some(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
    }
}

async fn gateway(names: &[&str]) -> TestGateway {
    let origins = names.iter().map(|name| format!("https://{name}")).collect();
    TestGateway::with(|policy| policy.other_audiences = origins).await
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let (gateway, ca) = (gateway(&[NAME]).await, PublicCa::new());
    assert!(ca.leaf(&gateway, NAME).await.is_none(), "there is no certificate yet");
    let first = ca.issue(&gateway.pki.public_dir(), &[NAME, "other.example.com"]);
    gateway.names.reload();
    assert_eq!(ca.leaf(&gateway, NAME).await, Some(first.clone()));
    assert_eq!(ca.leaf(&gateway, "MCP.Example.COM").await, Some(first));
    assert!(ca.leaf(&gateway, "other.example.com").await.is_none(), "the policy does not name it");
    // Clients of the name in the cluster get the fleet's certificate, as before.
    let mut client = gateway.client().await;
    assert_eq!(client.call("echo", json!({})).await.status, 200);
    let renewed = ca.issue(&gateway.pki.public_dir(), &[NAME]);
    gateway.names.reload();
    assert_eq!(ca.leaf(&gateway, NAME).await, Some(renewed));
}

#[tokio::test]
async fn a_pair_that_fails_the_check_leaves_the_former_one_in_use() {
    let (gateway, ca) = (gateway(&[NAME]).await, PublicCa::new());
    let dir = gateway.pki.public_dir();
    let good = ca.issue(&dir, &[NAME]);
    gateway.names.reload();
    ca.issue(&dir, &["wrong.example.com"]);
    gateway.names.reload();
    assert_eq!(ca.leaf(&gateway, NAME).await, Some(good.clone()));
    std::fs::write(dir.join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    gateway.names.reload();
    assert_eq!(ca.leaf(&gateway, NAME).await, Some(good.clone()));
    std::fs::remove_dir_all(&dir).unwrap();
    gateway.names.reload();
    assert_eq!(ca.leaf(&gateway, NAME).await, Some(good));
    gateway.change_policy(|policy| policy.other_audiences.clear());
    assert!(ca.leaf(&gateway, NAME).await.is_none(), "the policy does not name it any more");
}

#[tokio::test]
async fn a_former_name_keeps_its_certificate_when_the_mounted_one_is_for_another_name() {
    let (gateway, ca) = (gateway(&[FORMER]).await, PublicCa::new());
    let former = ca.issue(&gateway.pki.public_dir(), &[FORMER]);
    gateway.names.reload();
    let new = ca.issue(&gateway.pki.public_dir(), &[NAME]);
    gateway.change_policy(|policy| policy.other_audiences.push(format!("https://{NAME}")));
    assert_eq!((ca.leaf(&gateway, FORMER).await, ca.leaf(&gateway, NAME).await), (Some(former), Some(new)));
    let expiry =
        |name| gateway.metric("mcp_pod_public_certificate_expiry_timestamp_seconds", &format!("hostname=\"{name}\""));
    let validity = gateway.metric("mcp_pod_public_certificate_validity_seconds", &format!("hostname=\"{NAME}\""));
    assert!(expiry(NAME) > 0.0 && expiry(FORMER) > 0.0 && validity > 0.0);
    gateway.change_policy(|policy| policy.other_audiences.retain(|origin| origin.ends_with(NAME)));
    assert!(!gateway.metrics().contains(FORMER), "{}", gateway.metrics());
}

#[tokio::test]
async fn tokens_for_each_of_the_names_are_accepted_and_for_no_other() {
    let gateway = gateway(&[NAME, FORMER]).await;
    let status = async |audience| {
        let mut client = gateway.client_with(&gateway.pki.token(Token { audience, ..Token::default() })).await;
        let answer = client.call("echo", json!({})).await;
        (answer.status == 200).then_some(()).ok_or(answer.json()["error"]["data"]["reason"].clone())
    };
    for audience in ["https://gateway.acme-mcp.svc", "https://mcp.example.com", "https://old.example.com"] {
        assert_eq!(status(audience).await, Ok(()), "{audience}");
    }
    for audience in ["https://mcp.example.org", "https://mcp.example.com/", "mcp.example.com"] {
        assert_eq!(status(audience).await, Err(json!("token_wrong_audience")), "{audience}");
    }
    // A token that was accepted before is refused as soon as the policy does not name its audience any more.
    gateway.change_policy(|policy| policy.other_audiences.pop().map_or((), drop));
    assert_eq!(status("https://old.example.com").await, Err(json!("token_wrong_audience")));
    assert_eq!(status("https://mcp.example.com").await, Ok(()));
}

#[tokio::test]
async fn a_page_of_the_public_name_is_of_the_same_origin() {
    let gateway = gateway(&[NAME]).await;
    let mut client = gateway.client().await;
    let mut status = async |origin: &str| {
        let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("origin", origin));
        client.send(Method::POST, "/files/mcp", &headers, body).await.status.as_u16()
    };
    assert_eq!((status("https://mcp.example.com").await, status("https://mcp.example.org").await), (200, 403));
}
