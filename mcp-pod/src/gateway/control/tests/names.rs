//! Tests of what the leader is told about public names.

use std::path::Path;

use mcp_fleet_control::wire::{PublicCertificates, from_gateway};
use mcp_fleet_policy::model::TenantPolicy;

use super::operator::{ControlStream, NAME, Operator};
use super::{policy, start, start_with};

const HOST: &str = "mcp.example.com";

/// Writes a certificate for the name. Returns its end.
fn issue(dir: &Path) {
    let pair = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    std::fs::write(dir.join("tls.crt"), pair.cert.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
}

fn named(generation: u64) -> TenantPolicy {
    TenantPolicy { other_audiences: vec![format!("https://{HOST}")], ..policy(generation) }
}

/// Returns the next report of public names.
async fn report(stream: &mut ControlStream) -> Vec<(String, usize)> {
    loop {
        if let from_gateway::Message::PublicCertificates(PublicCertificates { served }) = stream.next().await {
            return served.into_iter().map(|one| (one.hostname, one.sha256.len())).collect();
        }
    }
}

#[tokio::test]
async fn the_leader_is_told_which_names_are_served_after_the_policy_is_acknowledged_and_on_every_stream() {
    let dir = tempfile::tempdir().unwrap();
    let mut operator = Operator::start(NAME).await;
    let gateway = start_with(&operator, dir.path());
    let mut stream = operator.accept().await;
    issue(dir.path());
    // The first message after the policy is its acknowledgement.
    stream.push(&named(3)).await;
    assert_eq!(report(&mut stream).await, [(HOST.to_owned(), 32)]);
    // A renewed certificate is reported without a policy.
    issue(dir.path());
    gateway.state.names.reload();
    assert_eq!(report(&mut stream).await, [(HOST.to_owned(), 32)]);
    drop(stream);
    let mut stream = operator.accept().await;
    assert_eq!(report(&mut stream).await, [(HOST.to_owned(), 32)], "another leader knows nothing");
    stream.push(&policy(4)).await;
    assert_eq!(report(&mut stream).await, []);
}

#[tokio::test]
async fn a_gateway_that_serves_no_name_reports_none() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    stream.push(&named(3)).await;
    assert!(gateway.state.names.served().is_empty());
    // Acknowledgements are answered in order, so a report would have come before this one.
    assert_eq!(stream.push(&policy(4)).await.generation, 4);
}
