//! Examples that the tests of the steps share, and reconciles against a fake API server.

use super::dereference::Inputs;
use super::validate::Server;
use super::*;
use crate::controllers::identity::{ObjectId, Owner};
use crate::controllers::tenant::tests::tenant;
use crate::kubernetes::labels::FINALIZER;
use crate::testing::TestContext;

pub(super) fn server() -> MCPServer {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPServer",
        "metadata": {"name": "files", "namespace": "acme", "uid": "s-1", "generation": 1},
        "spec": {
            "source": {"type": "Stdio", "stdio": {
                "image": format!("registry.example.com/acme/files@sha256:{}", "0a".repeat(32)),
                "command": ["mcp-server-filesystem", "/workspace"],
                "env": [{"name": "LANG", "value": "C.UTF-8"}],
                "resources": {"limits": {"cpu": "1", "memory": "512Mi"}},
            }},
            "workspace": {"mountPath": "/workspace", "storage": "1Gi"},
            "tools": [{"name": "read_text_file", "class": "Read"}],
        },
    }))
    .unwrap()
}

pub(super) fn inputs() -> Inputs {
    let tenant = Arc::new(tenant());
    let owner = Owner { id: ObjectId { name: "acme".into(), uid: "u-1".into() }, tenant };
    Inputs { id: ObjectId { name: "files".into(), uid: "s-1".into() }, owner: Some(owner), prepared: true }
}

pub(super) fn checked() -> Server {
    validate(&server(), &inputs()).unwrap()
}

const SERVER: &str = "/apis/mcp-fleet.dev/v1alpha1/namespaces/acme/mcpservers/files";

fn with_tenant() -> TestContext {
    let mut test = TestContext::new();
    test.add_tenant(&tenant());
    test
}

#[tokio::test]
async fn a_server_is_applied_in_order_and_its_status_is_written_last() {
    let test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let expected = [
        "POST secrets",
        "PATCH networkpolicies/mcp-files",
        "PATCH services/mcp-files",
        "PATCH statefulsets/mcp-files",
        "PUT mcpservers/files/status",
    ];
    assert_eq!(test.reconcile::<Servers>(&server).await, expected);
    assert_eq!(
        (test.condition(SERVER, "Ready").1, test.condition(SERVER, "Accepted").1),
        ("WorkloadUnavailable".into(), "Reconciled".into())
    );
}

#[tokio::test]
async fn a_rejected_server_only_gets_a_status_and_no_finalizer() {
    let test = with_tenant();
    let mut server = server();
    server.spec.source.stdio.as_mut().unwrap().image = "evil.example/files:1".into();
    assert_eq!(test.reconcile::<Servers>(&server).await, ["PUT mcpservers/files/status"]);
    assert_eq!(
        (test.condition(SERVER, "Accepted").1, test.condition(SERVER, "Stalled").1),
        ("ImageNotAllowed".into(), "ImageNotAllowed".into())
    );
}

#[tokio::test]
async fn an_object_that_a_server_no_longer_declares_is_deleted() {
    let test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    // The server had no workspace before, and ran as a Deployment.
    test.add_owned("Deployment", "acme-mcp", "mcp-files", checked().labels());
    // Someone copied our labels to an object of their own.
    test.add_owned("Deployment", "acme", "theirs", checked().labels());
    let writes = test.reconcile::<Servers>(&server).await;
    let deleted: Vec<_> = writes.iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deleted, ["DELETE deployments/mcp-files"]);
}

#[tokio::test]
async fn a_server_that_cannot_be_read_is_torn_down() {
    let test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    server.metadata.deletion_timestamp =
        Some(serde_json::from_value(serde_json::json!("2026-11-22T12:00:00Z")).unwrap());
    let mut stored = serde_json::to_value(&server).unwrap();
    stored["spec"]["source"]["type"] = "Odd".into();
    test.api.insert(SERVER, stored);
    test.add_owned("StatefulSet", "acme-mcp", "mcp-files", checked().labels());
    let writes = test.reconcile::<Servers>(&server).await;
    assert_eq!(writes.last().map(String::as_str), Some("PATCH mcpservers/files"), "{writes:?}");
    assert!(writes.contains(&"DELETE statefulsets/mcp-files".to_owned()), "{writes:?}");
}
