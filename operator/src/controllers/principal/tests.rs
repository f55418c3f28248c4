//! Examples that the tests of the steps share, and reconciles against a fake API server.

use clap::Parser as _;

use super::*;
use crate::config::Config;
use crate::controllers::tenant::tests::tenant;
use crate::testing::TestContext;

pub(super) fn principal() -> MCPPrincipal {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPPrincipal",
        "metadata": {"name": "coder", "namespace": "acme", "uid": "p-1", "generation": 1},
        "spec": {"scopeRefs": [{"name": "files-read"}]},
    }))
    .unwrap()
}

pub(super) fn inputs() -> Inputs {
    let tenant = Arc::new(tenant());
    let owner = Owner { id: ObjectId { name: "acme".into(), uid: "u-1".into() }, tenant };
    let id = ObjectId { name: "coder".into(), uid: "p-1".into() };
    Inputs { id, owner: Some(owner), prepared: true, secret: None, known: None }
}

pub(super) fn config() -> Config {
    Config::parse_from(["operator", "--mcp-pod-image=mcp-pod:dev"])
}

pub(super) fn checked() -> Principal {
    validate(&principal(), &inputs(), &config()).unwrap()
}

const PRINCIPAL: &str = "/apis/mcp-fleet.dev/v1alpha1/namespaces/acme/mcpprincipals/coder";
const CREDENTIAL: &str = "/api/v1/namespaces/acme/secrets/coder-mcp-credential";

fn with_tenant() -> TestContext {
    let mut test = TestContext::new();
    test.add_tenant(&tenant());
    test
}

#[tokio::test]
async fn a_principal_gets_a_token_in_a_secret() {
    let test = with_tenant();
    // The first Secret holds the tenant's keys, the second the credential.
    assert_eq!(
        test.reconcile::<Principals>(&principal()).await,
        ["POST secrets", "POST secrets", "PUT mcpprincipals/coder/status"]
    );
    assert!(test.api.get(CREDENTIAL).unwrap()["data"]["token"].is_string());
    assert_eq!(test.condition(PRINCIPAL, "CredentialCurrent").1, "Issued");
    assert_eq!(test.api.take_events(), ["CredentialIssued"]);
}

#[tokio::test]
async fn a_revocation_is_stored_before_a_new_token_is_issued() {
    let test = with_tenant();
    let mut principal = principal();
    let time = serde_json::from_str("\"2026-11-10T00:00:00Z\"").unwrap();
    principal.spec.revoke_issued_before = Some(time);
    let writes = test.reconcile::<Principals>(&principal).await;
    assert_eq!(writes[0], "POST configmaps");
    assert_eq!(test.condition(PRINCIPAL, "RevocationApplied").1, "Applied");
}

#[tokio::test]
async fn a_secret_of_someone_else_is_not_touched() {
    let test = with_tenant();
    test.api.insert(CREDENTIAL, serde_json::json!({"metadata": {"name": "coder-mcp-credential"}}));
    assert_eq!(test.reconcile::<Principals>(&principal()).await, ["PUT mcpprincipals/coder/status"]);
    assert_eq!(
        (test.condition(PRINCIPAL, "CredentialCurrent").1, test.condition(PRINCIPAL, "Stalled").1),
        ("SecretNotOwned".into(), "SecretNotOwned".into())
    );
}

#[tokio::test]
async fn a_credential_that_nobody_changed_is_not_read_again() {
    let mut test = with_tenant();
    test.reconcile::<Principals>(&principal()).await;
    test.api.take_reads();
    test.reconcile::<Principals>(&principal()).await;
    assert_eq!(test.api.take_reads(), Vec::<String>::new());
    // One that has to be replaced is read first, with the version that is replaced: tokens may not be valid for so long.
    let mut tenant = tenant();
    tenant.spec.credentials.lifetime = mcp_fleet_policy::units::Window::from_secs(600);
    test.add_tenant(&tenant);
    let writes = test.reconcile::<Principals>(&principal()).await;
    assert!(writes.contains(&"PUT secrets/coder-mcp-credential".into()), "{writes:?}");
    assert!(test.api.take_reads().contains(&CREDENTIAL.to_owned()));
}
