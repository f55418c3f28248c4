//! An operator that finds the policy of a later version in force.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use mcp_fleet_control::{DecodeError, Digest, EncodedPolicy, snapshot};
use mcp_fleet_policy::model::TenantPolicy;
use serde_json::json;

use super::fleet::Fleet;
use super::statuses::enforced;

const SNAPSHOT: &str = "/api/v1/namespaces/acme-mcp/secrets/gateway-policy";
/// A field that this version does not know: number 900, a string.
const LATER: &[u8] = b"\xa2\x38\x05later";

fn files(fleet: &Fleet) -> BTreeMap<String, Vec<u8>> {
    let secret: Secret = serde_json::from_value(fleet.api.get(SNAPSHOT).unwrap()).unwrap();
    secret.data.unwrap().into_iter().map(|(name, bytes)| (name, bytes.0)).collect()
}

fn write(fleet: &Fleet, mut files: BTreeMap<String, Vec<u8>>) {
    let mut secret: Secret = serde_json::from_value(fleet.api.get(SNAPSHOT).unwrap()).unwrap();
    files.insert("later.json".into(), b"{}".to_vec());
    secret.data = Some(files.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect());
    fleet.api.insert(SNAPSHOT, serde_json::to_value(secret).unwrap());
}

/// Publishes the policy in force as a later version would, which also has a restriction that this version does not know.
/// Returns its generation.
fn publish_later(fleet: &Fleet) -> u64 {
    let mut policy = snapshot::read_policy(&files(fleet)).unwrap().policy;
    policy.generation += 1;
    let mut bytes = mcp_fleet_control::encode(&policy).bytes;
    bytes.extend(LATER);
    let encoded = EncodedPolicy { digest: Digest::of(&bytes), bytes };
    let mut all = files(fleet);
    all.extend(snapshot::write_files(policy.generation, &encoded, None).unwrap());
    write(fleet, all);
    policy.generation
}

/// Returns the policy in force, which a later version compiled, without what this version does not know.
fn later(fleet: &Fleet) -> TenantPolicy {
    let files = files(fleet);
    assert_eq!(files["later.json"], b"{}", "what a later version keeps in the Secret was removed");
    let (index, encoded) = snapshot::read_encoded(&files).unwrap();
    assert!(matches!(mcp_fleet_control::decode(&encoded.bytes), Err(DecodeError::NotUnderstood)));
    let policy = mcp_fleet_control::decode(encoded.bytes.strip_suffix(LATER).unwrap()).unwrap().policy;
    assert_eq!(policy.generation, index.generation);
    assert_eq!(fleet.published().unwrap(), (index.generation, encoded), "gateways get something else");
    policy
}

/// Starts an operator that takes over from one of a later version, and whose gateways find it.
async fn take_over() -> (Fleet, u64) {
    let mut fleet = enforced(3).await;
    let generation = publish_later(&fleet);
    fleet.replace_leader().await;
    fleet.connect("gateway-1");
    fleet.settle().await;
    (fleet, generation)
}

#[tokio::test(start_paused = true)]
async fn the_policy_of_a_later_version_stays_in_force() {
    let (fleet, generation) = take_over().await;
    assert_eq!(later(&fleet).generation, generation);
    assert_eq!(fleet.proved(), Some(generation), "it is not confirmed");
    assert_eq!(fleet.condition("mcptenants", "acme", "PolicyCurrent").1, "LaterPolicy");
    assert_eq!(fleet.condition("mcptenants", "acme", "Ready").1, "Reconciled", "calls go on");
    assert_eq!(fleet.condition("mcpscopes", "read-1", "Ready").1, "Reconciled", "it is enforced as it is written");
    // What it cannot express waits, and the conditions report it.
    fleet.apply("MCPScope", "read-1", &json!({"serverRef": {"name": "files-1"}, "classes": ["Write"]}));
    fleet.settle().await;
    assert_eq!(later(&fleet).generation, generation);
    assert_eq!(fleet.condition("mcpscopes", "read-1", "Ready").1, "LaterPolicy");
    assert_eq!(fleet.condition("mcpscopes", "read-2", "Ready").1, "Reconciled");
}

#[tokio::test(start_paused = true)]
async fn suspension_and_revocation_apply_to_the_policy_of_a_later_version() {
    let (fleet, generation) = take_over().await;
    let scope = json!([{"name": "read-1"}]);
    fleet.apply("MCPPrincipal", "coder-1", &json!({"scopeRefs": scope, "suspend": true}));
    let revoked = "2026-11-22T12:00:00Z";
    fleet.apply("MCPPrincipal", "coder-2", &json!({"scopeRefs": [], "revokeIssuedBefore": revoked}));
    fleet.settle().await;
    let policy = later(&fleet);
    assert!(policy.generation > generation);
    let found = |name: &str| policy.principals.iter().find(|principal| principal.name == name).unwrap();
    assert!(!found("coder-0").suspended && found("coder-1").suspended);
    assert_eq!(found("coder-2").revoked_until, Some(1_795_348_800));
    assert_eq!(found("coder-2").grants.len(), 1, "its grants are not changed");
    assert_eq!(fleet.proved(), Some(policy.generation));
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_lost_are_replaced_and_reported() {
    let mut fleet = enforced(1).await;
    fleet.lose_keys();
    fleet.replace_leader().await;
    fleet.connect("gateway-1");
    fleet.settle().await;
    assert!(fleet.api.take_events().contains(&"KeysReplaced".into()));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_with_an_index_of_a_later_version_is_not_overwritten() {
    let mut fleet = enforced(1).await;
    let mut files = files(&fleet);
    files.insert("index.json".into(), br#"{"version": 2, "generation": 9, "parts": []}"#.to_vec());
    write(&fleet, files);
    let before = fleet.api.get(SNAPSHOT).unwrap();
    fleet.replace_leader().await;
    fleet.connect("gateway-1");
    fleet.apply("MCPPrincipal", "coder-0", &json!({"scopeRefs": [], "suspend": true}));
    fleet.settle().await;
    assert_eq!(fleet.api.get(SNAPSHOT).unwrap(), before);
    assert_eq!(fleet.proved(), None, "what is not understood at all must not be confirmed");
    assert_eq!(fleet.condition("mcptenants", "acme", "PolicyCurrent").1, "LaterPolicy");
}
