//! Examples that the tests of the steps share, and reconciles against a fake API server.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mcp_fleet_core::labels::FINALIZER;
use mcp_fleet_core::shared_state::verdict::{PolicyEntry, Verdict};
use mcp_fleet_crds::condition::ConditionReason as Reason;
use mcp_fleet_crds::server::WorkspaceRetention;
use mcp_fleet_crds::tenant::{Enforcement, Reattach};
use serde_json::{Value, json};

use super::dereference::Inputs;
use super::validate::Server;
use super::workspace::Found;
use super::*;
use crate::controllers::identity::{ObjectId, Owner};
use crate::controllers::tenant::tests::tenant;
use crate::testing::TestContext;

pub(crate) fn server() -> MCPServer {
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
    Inputs {
        id: ObjectId { name: "files".into(), uid: "s-1".into() },
        owner: Some(owner),
        prepared: true,
        workspace: Found::default(),
        config: Ok(Arc::default()),
        missing_resource: None,
    }
}

pub(super) fn checked() -> Server {
    validate(&server(), &inputs()).unwrap()
}

pub(super) const SERVER: &str = "/apis/mcp-fleet.dev/v1alpha1/namespaces/acme/mcpservers/files";

pub(super) fn with_tenant() -> TestContext {
    let mut test = TestContext::new();
    test.add_tenant(&tenant());
    test
}

/// Returns a server that the API server holds, with its finalizer.
fn stored() -> (TestContext, MCPServer) {
    let test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    test.api.insert(SERVER, serde_json::to_value(&server).unwrap());
    (test, server)
}

#[tokio::test]
async fn a_server_is_applied_in_order_and_its_status_is_written_last() {
    let test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let expected =
        ["POST secrets", "POST networkpolicies", "POST services", "POST statefulsets", "PUT mcpservers/files/status"];
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
    let (test, server) = stored();
    // The server had no workspace before, and ran as a Deployment.
    test.add_owned("Deployment", "acme-mcp", "mcp-files", checked().labels());
    // Someone copied our labels to an object of their own.
    test.add_owned("Deployment", "acme", "theirs", checked().labels());
    let writes = test.reconcile::<Servers>(&server).await;
    let deleted: Vec<_> = writes.iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(deleted, ["DELETE deployments/mcp-files"]);
}

#[tokio::test]
async fn the_service_of_an_earlier_version_stays_until_gateways_have_the_addresses_of_pods() {
    let (test, server) = stored();
    test.add_owned("Service", "acme-mcp", "mcp-files", checked().labels());
    let deleted = |writes: Vec<String>| writes.into_iter().filter(|it| it.starts_with("DELETE")).collect::<Vec<_>>();
    assert!(deleted(test.reconcile::<Servers>(&server).await).is_empty());
    let verdict = Verdict { ok: true, reason: Reason::Reconciled, message: String::new(), object_generation: 1 };
    for (has_address, expected) in [(false, vec![]), (true, vec!["DELETE services/mcp-files".to_owned()])] {
        let entry = PolicyEntry { verdict: verdict.clone(), since: 1, has_address };
        let entries = BTreeMap::from([((Kind::Server, "s-1".to_owned()), entry)]);
        test.ctx.shared_state.set_published("u-1", 1, String::new(), entries.into());
        assert_eq!(deleted(test.reconcile::<Servers>(&server).await), expected);
    }
}

pub(super) const SET: &str = "/apis/apps/v1/namespaces/acme-mcp/statefulsets/mcp-files";
const CLAIM: &str = "/api/v1/namespaces/acme-mcp/persistentvolumeclaims/workspace-s-1-mcp-files-0";

/// A server that is being deleted, with a workspace and what was made for it.
fn deleted(retain: WorkspaceRetention) -> (TestContext, MCPServer) {
    let test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    server.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    server.spec.workspace.as_mut().unwrap().retain = retain;
    test.api.insert(SERVER, serde_json::to_value(&server).unwrap());
    let owner = [json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "mcp-files", "uid": "o-1"})];
    let claim = json!({"metadata": {"name": "workspace-s-1-mcp-files-0", "labels": checked().labels(), "ownerReferences": owner}});
    test.api.insert(CLAIM, claim);
    test.add_owned("NetworkPolicy", "acme-mcp", "mcp-files", checked().labels());
    test.add_owned("StatefulSet", "acme-mcp", "mcp-files", checked().labels());
    (test, server)
}

#[tokio::test]
async fn the_workspace_of_a_deleted_server_is_retained_and_marked() {
    let (test, server) = deleted(WorkspaceRetention::Retain);
    let expected = [
        "PATCH statefulsets/mcp-files",
        "PATCH persistentvolumeclaims/workspace-s-1-mcp-files-0",
        "DELETE statefulsets/mcp-files",
        "DELETE networkpolicies/mcp-files",
        "PATCH mcpservers/files",
    ];
    assert_eq!(test.reconcile::<Servers>(&server).await, expected);
    let metadata = test.api.get(CLAIM).unwrap()["metadata"].clone();
    assert!(metadata["labels"][labels::RETAINED_SINCE].is_string());
    assert!(metadata["ownerReferences"].is_null(), "the claim would go with its StatefulSet");
    assert_eq!(test.api.take_events(), ["WorkspaceRetained"]);
}

#[tokio::test]
async fn a_workspace_with_retain_delete_is_deleted_with_its_server() {
    let (test, server) = deleted(WorkspaceRetention::Delete);
    let writes = test.reconcile::<Servers>(&server).await;
    assert!(writes.contains(&"DELETE persistentvolumeclaims/workspace-s-1-mcp-files-0".into()), "{writes:?}");
}

#[tokio::test]
async fn a_teardown_deletes_nothing_while_the_cache_lags() {
    let (test, server) = deleted(WorkspaceRetention::Delete);
    // Someone changed `retain` at the last moment, and the cache does not have the change yet.
    let mut newer = serde_json::to_value(&server).unwrap();
    newer["metadata"]["generation"] = json!(2);
    newer["spec"]["workspace"]["retain"] = json!("Retain");
    test.api.insert(SERVER, newer);
    assert_eq!(test.reconcile::<Servers>(&server).await, ["PATCH statefulsets/mcp-files"]);
}

#[tokio::test]
async fn the_workspace_of_a_server_that_is_gone_always_stays() {
    let (test, server) = deleted(WorkspaceRetention::Delete);
    test.api.remove(SERVER);
    let writes = test.reconcile::<Servers>(&server).await;
    assert!(!writes.iter().any(|write| write.starts_with("DELETE persistentvolumeclaims")), "{writes:?}");
}

#[tokio::test]
async fn a_new_server_of_the_same_name_does_not_see_a_retained_workspace() {
    let test = with_tenant();
    assert_eq!(claim_of_a_new_server(&test).await, "workspace-s-2");
}

#[tokio::test]
async fn a_new_server_of_the_same_name_gets_the_workspace_if_the_tenant_allows_it() {
    let mut tenant = tenant();
    tenant.spec.workspaces.reattach = Reattach::SameName;
    let mut test = TestContext::new();
    test.add_tenant(&tenant);
    assert_eq!(claim_of_a_new_server(&test).await, "workspace-s-1");
    let labels = test.api.get(CLAIM).unwrap()["metadata"]["labels"].clone();
    assert_eq!((&labels[labels::SERVER_UID], &labels[labels::RETAINED_SINCE]), (&json!("s-2"), &json!(null)));
}

/// Kubernetes refuses to change the claim templates of a `StatefulSet`.
#[tokio::test]
async fn an_existing_stateful_set_keeps_its_claim_template() {
    let test = with_tenant();
    let templates = json!([{"metadata": {"name": "workspace"}}]);
    let spec = json!({"selector": {}, "template": {}, "volumeClaimTemplates": templates});
    test.api.insert(SET, json!({"metadata": {"name": "mcp-files", "labels": checked().labels()}, "spec": spec}));
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    assert!(test.reconcile::<Servers>(&server).await.contains(&"PATCH statefulsets/mcp-files".into()));
    let set = test.api.get(SET).unwrap();
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "workspace");
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Retain");
}

/// Reconciles a new server while a claim of a former one is retained. Returns the name of the new claim template.
async fn claim_of_a_new_server(test: &TestContext) -> String {
    let mut labels = checked().labels();
    labels.insert(labels::RETAINED_SINCE.into(), "20261101T000000Z".into());
    test.api.insert(CLAIM, json!({"metadata": {"name": "workspace-s-1-mcp-files-0", "labels": labels}}));
    let mut server = server();
    (server.metadata.uid, server.metadata.finalizers) = (Some("s-2".into()), Some(vec![FINALIZER.into()]));
    test.reconcile::<Servers>(&server).await;
    let set = test.api.get(SET).unwrap();
    set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"].as_str().unwrap().to_owned()
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

/// Runs a server, and then lets the tenant allow only other images.
async fn with_narrowed_images(enforcement: Enforcement) -> (TestContext, MCPServer) {
    let mut test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    test.reconcile::<Servers>(&server).await;
    let mut tenant = tenant();
    tenant.spec.images.allowed = vec!["registry.example.com/others/*".into()];
    tenant.spec.enforcement = enforcement;
    test.add_tenant(&tenant);
    (test, server)
}

fn tool(set: &Value) -> &Value {
    &set["spec"]["template"]["spec"]["containers"][0]
}

#[tokio::test]
async fn a_server_whose_image_is_no_longer_allowed_is_maintained() {
    let (test, mut server) = with_narrowed_images(Enforcement::Keep).await;
    let before = test.api.get(SET).unwrap();
    // Nobody may change what runs.
    let stdio = server.spec.source.stdio.as_mut().unwrap();
    (stdio.command, stdio.env) = (vec!["evil".into()], vec![]);
    server.spec.replicas = 7;
    // The policy in front of it is gone, and its certificate too.
    test.api.remove("/apis/networking.k8s.io/v1/namespaces/acme-mcp/networkpolicies/mcp-files");
    test.api.remove("/api/v1/namespaces/acme-mcp/secrets/mcp-files-tls");
    let (kind, namespace, name) = ("NetworkPolicy".into(), "acme-mcp".into(), "mcp-files".into());
    test.ctx.cache.owned.remove(&crate::kubernetes::cache::Key { kind, namespace, name });
    test.ctx.cache.secrets.doubt("acme-mcp", "mcp-files-tls");
    let writes = test.reconcile::<Servers>(&server).await;
    assert_eq!(writes[..2], ["POST secrets", "POST networkpolicies"]);
    let after = test.api.get(SET).unwrap();
    assert_eq!((tool(&after), &after["spec"]["replicas"]), (tool(&before), &json!(1)));
    assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), "ImageNotAllowed".into()));
    assert!(message_of(&test, "Stalled").ends_with("; what was accepted before goes on running"));
}

#[tokio::test]
async fn a_server_whose_image_is_no_longer_allowed_is_stopped_if_the_tenant_says_so() {
    let (test, server) = with_narrowed_images(Enforcement::ScaleToZero).await;
    assert!(test.reconcile::<Servers>(&server).await.contains(&"PATCH statefulsets/mcp-files".to_owned()));
    assert_eq!(test.api.get(SET).unwrap()["spec"]["replicas"], 0);
    assert!(message_of(&test, "Stalled").contains("its pods are stopped"));
}

#[tokio::test]
async fn an_edit_to_an_image_that_is_not_allowed_stops_nothing() {
    let mut test = with_tenant();
    let mut tenant = tenant();
    tenant.spec.enforcement = Enforcement::ScaleToZero;
    test.add_tenant(&tenant);
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    test.reconcile::<Servers>(&server).await;
    let allowed = server.spec.source.stdio.clone().unwrap().image;
    server.spec.source.stdio.as_mut().unwrap().image = "evil.example/files:1".into();
    test.reconcile::<Servers>(&server).await;
    let set = test.api.get(SET).unwrap();
    assert_eq!((&tool(&set)["image"], &set["spec"]["replicas"]), (&json!(allowed), &json!(1)));
}

#[tokio::test]
async fn what_someone_else_wrote_into_a_workload_is_not_maintained() {
    let (test, server) = with_narrowed_images(Enforcement::Keep).await;
    let mut set = test.api.get(SET).unwrap();
    set["metadata"]["managedFields"] = json!([
        {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]);
    test.api.insert(SET, set);
    assert_eq!(test.reconcile::<Servers>(&server).await, ["PUT mcpservers/files/status"]);
}

#[tokio::test]
async fn a_server_that_no_longer_fits_in_the_quota_is_stopped_if_the_tenant_says_so() {
    let (mut test, mut server) = (with_tenant(), server());
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    test.add_server(&server);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.api.get(SET).unwrap()["spec"]["replicas"], 1);
    let mut tenant = tenant();
    tenant.spec.enforcement = Enforcement::ScaleToZero;
    tenant.spec.hard.insert("pods".into(), serde_json::from_value(json!("1")).unwrap());
    test.add_tenant(&tenant);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.api.get(SET).unwrap()["spec"]["replicas"], 0);
    assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), "QuotaExceeded".into()));
    assert!(message_of(&test, "Stalled").contains("the tenant's pods"));
}

#[tokio::test]
async fn a_change_of_one_server_affects_the_others_only_where_servers_are_stopped() {
    let mut test = with_tenant();
    let (mut one, mut other) = (server(), server());
    one.metadata.name = Some("one".into());
    other.metadata.name = Some("other".into());
    test.add_server(&one);
    test.add_server(&other);
    let change = Change::Server("acme".into(), "one".into());
    assert_eq!(Servers::affected_by_change(&test.ctx.cache, &change).len(), 1);
    let mut tenant = tenant();
    tenant.spec.enforcement = Enforcement::ScaleToZero;
    test.add_tenant(&tenant);
    assert_eq!(Servers::affected_by_change(&test.ctx.cache, &change).len(), 2);
}

pub(super) fn message_of(test: &TestContext, condition: &str) -> String {
    let object = test.api.get(SERVER).unwrap();
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|it| it["type"] == condition).unwrap()["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn objects_that_nobody_changed_are_not_read_again() {
    let test = with_tenant();
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    server.spec.workspace = None;
    test.api.insert(SERVER, serde_json::to_value(&server).unwrap());
    test.reconcile::<Servers>(&server).await;
    test.api.take_reads();
    server.status = serde_json::from_value(test.api.get(SERVER).unwrap()["status"].clone()).unwrap();
    assert_eq!(test.reconcile::<Servers>(&server).await, Vec::<String>::new());
    assert_eq!(test.api.take_reads(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_tenant_does_not_allow_for_pods_is_refused_and_what_runs_goes_on() {
    let (mut test, mut server) = stored();
    server.spec.pod = serde_json::from_value(json!({"nodeSelector": {"kubernetes.io/arch": "arm64"}})).unwrap();
    test.reconcile::<Servers>(&server).await;
    let spec = |test: &TestContext| test.api.get(SET).unwrap()["spec"].clone();
    let before = spec(&test);
    assert_eq!(before["template"]["spec"]["nodeSelector"], json!({"kubernetes.io/arch": "arm64"}));
    server.spec.pod.runtime_class_name = Some("runc".into());
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Accepted"), ("False".into(), "PodNotAllowed".into()));
    let message = message_of(&test, "Stalled");
    assert!(message.contains("serverPods.allowed.runtimeClassNames does not contain runc"), "{message}");
    assert!(message.ends_with("; what was accepted before goes on running"), "{message}");
    assert_eq!(spec(&test), before);
    let mut tenant = tenant();
    tenant.spec.server_pods.allowed.runtime_class_names = vec!["runc".into()];
    test.add_tenant(&tenant);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(spec(&test)["template"]["spec"]["runtimeClassName"], "runc");
}

#[tokio::test]
async fn pods_that_the_tenant_does_not_allow_any_more_are_stopped_only_if_it_says_so() {
    for (enforcement, replicas) in [(Enforcement::Keep, 1), (Enforcement::ScaleToZero, 0)] {
        let (mut test, mut server) = stored();
        let mut tenant = tenant();
        tenant.spec.enforcement = enforcement;
        tenant.spec.server_pods.allowed.priority_class_names = vec!["high".into()];
        test.add_tenant(&tenant);
        server.spec.pod.priority_class_name = Some("high".into());
        test.reconcile::<Servers>(&server).await;
        tenant.spec.server_pods.allowed.priority_class_names.clear();
        test.add_tenant(&tenant);
        test.reconcile::<Servers>(&server).await;
        let spec = &test.api.get(SET).unwrap()["spec"];
        assert_eq!(spec["template"]["spec"]["priorityClassName"], "high");
        assert_eq!(spec["replicas"], replicas);
    }
}

#[tokio::test]
async fn pods_of_a_server_that_asks_for_too_much_get_what_the_tenant_requires() {
    for (enforcement, replicas) in [(Enforcement::Keep, 1), (Enforcement::ScaleToZero, 0)] {
        let (mut test, mut server) = stored();
        let mut tenant = tenant();
        tenant.spec.enforcement = enforcement;
        tenant.spec.server_pods.node_selector.insert("pool".into(), "tools".into());
        test.add_tenant(&tenant);
        test.reconcile::<Servers>(&server).await;
        server.spec.pod.priority_class_name = Some("high".into());
        tenant.spec.server_pods = serde_json::from_value(json!({
            "nodeSelector": {"pool": "other"}, "tolerations": [{"key": "pool", "value": "other"}],
            "runtimeClassName": "kata", "annotations": {"example.com/a": "1"},
        }))
        .unwrap();
        test.add_tenant(&tenant);
        test.reconcile::<Servers>(&server).await;
        assert_eq!(test.condition(SERVER, "Accepted"), ("False".into(), "PodNotAllowed".into()));
        let spec = &test.api.get(SET).unwrap()["spec"];
        let pod = &spec["template"]["spec"];
        assert_eq!((&pod["nodeSelector"], &pod["runtimeClassName"]), (&json!({"pool": "other"}), &json!("kata")));
        assert_eq!(pod["tolerations"][0]["value"], "other");
        assert_eq!(spec["template"]["metadata"]["annotations"]["example.com/a"], "1");
        assert!(pod["priorityClassName"].is_null());
        assert_eq!(spec["replicas"], replicas);
    }
}

/// A server with a workspace of 1Gi that runs, and whose spec then asks for another size.
async fn resized(storage: &str) -> (TestContext, MCPServer) {
    let (test, mut server) = stored();
    test.reconcile::<Servers>(&server).await;
    let claim = json!({
        "metadata": {"name": "workspace-s-1-mcp-files-0", "labels": checked().labels(), "resourceVersion": "7"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
        "status": {"capacity": {"storage": "1Gi"}},
    });
    test.api.insert(CLAIM, claim);
    server.spec.workspace.as_mut().unwrap().storage = serde_json::from_value(json!(storage)).unwrap();
    (test, server)
}

#[tokio::test]
async fn the_claim_of_a_workspace_grows_and_the_stateful_set_stays_as_it_is() {
    let (test, server) = resized("2Gi").await;
    let before = test.api.get(SET).unwrap()["spec"].clone();
    let writes = test.reconcile::<Servers>(&server).await;
    assert_eq!(writes, ["PATCH persistentvolumeclaims/workspace-s-1-mcp-files-0", "PUT mcpservers/files/status"]);
    assert_eq!(test.api.get(CLAIM).unwrap()["spec"]["resources"]["requests"]["storage"], "2Gi");
    assert_eq!(test.api.get(SET).unwrap()["spec"], before, "its template of claims cannot be changed");
    assert_eq!(test.condition(SERVER, "WorkspaceCurrent"), ("False".into(), "Expanding".into()));
    let mut claim = test.api.get(CLAIM).unwrap();
    claim["status"]["capacity"]["storage"] = json!("2Gi");
    test.api.insert(CLAIM, claim);
    assert_eq!(test.reconcile::<Servers>(&server).await, ["PUT mcpservers/files/status"]);
    assert_eq!(test.condition(SERVER, "WorkspaceCurrent"), ("True".into(), "Reconciled".into()));
}

#[tokio::test]
async fn a_volume_that_cannot_have_the_size_says_why_and_the_server_runs_on() {
    let (test, server) = resized("2Gi").await;
    let why = "persistentvolumeclaims \"workspace-s-1-mcp-files-0\" is forbidden: only dynamically provisioned pvc can be resized";
    test.api.forbid(CLAIM, why);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "WorkspaceCurrent"), ("False".into(), "ExpansionRefused".into()));
    let message = message_of(&test, "WorkspaceCurrent");
    assert!(
        message.starts_with("Kubernetes refuses the size of the volume: only dynamically provisioned"),
        "{message}"
    );
    assert_eq!(test.condition(SERVER, "Accepted").0, "True");
    let (test, server) = resized("500Mi").await;
    assert_eq!(test.reconcile::<Servers>(&server).await, ["PUT mcpservers/files/status"]);
    assert_eq!(test.condition(SERVER, "WorkspaceCurrent"), ("False".into(), "CannotShrink".into()));
}

#[tokio::test]
async fn a_claim_that_cannot_be_changed_now_holds_up_nothing_else() {
    let claims = CLAIM.rsplit_once('/').unwrap().0;
    for (method, path, code) in [
        (Method::GET, claims, StatusCode::SERVICE_UNAVAILABLE),
        (Method::PATCH, CLAIM, StatusCode::SERVICE_UNAVAILABLE),
        (Method::PATCH, CLAIM, StatusCode::CONFLICT),
        (Method::PATCH, CLAIM, StatusCode::TOO_MANY_REQUESTS),
    ] {
        let (test, mut server) = resized("2Gi").await;
        test.reconcile::<Servers>(&server).await;
        let mut claim = test.api.get(CLAIM).unwrap();
        claim["spec"]["resources"]["requests"]["storage"] = json!("1Gi");
        test.api.insert(CLAIM, claim);
        test.api.fail(method, path, code, "not now");
        test.add_owned("Deployment", "acme-mcp", "mcp-files", checked().labels());
        server.status = serde_json::from_value(test.api.get(SERVER).unwrap()["status"].clone()).unwrap();
        server.metadata.generation = Some(2);
        test.api.insert(SERVER, serde_json::to_value(&server).unwrap());
        let writes = test.reconcile::<Servers>(&server).await;
        assert!(writes.contains(&"DELETE deployments/mcp-files".to_owned()), "{writes:?}");
        assert_eq!(test.condition(SERVER, "WorkspaceCurrent"), ("False".into(), "Expanding".into()));
        let message = message_of(&test, "WorkspaceCurrent");
        assert_eq!(message, "the volume is being made larger: the storage driver was asked");
    }
    for code in [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY] {
        let (test, server) = resized("2Gi").await;
        test.api.fail(Method::PATCH, CLAIM, code, "never");
        test.reconcile::<Servers>(&server).await;
        assert_eq!(test.condition(SERVER, "WorkspaceCurrent").1, "ExpansionRefused");
    }
}

#[tokio::test]
async fn a_size_in_other_words_is_the_same_size() {
    let (test, server) = resized("1024Mi").await;
    test.api.take_reads();
    test.reconcile::<Servers>(&server).await;
    assert!(!test.api.take_reads().iter().any(|path| path.ends_with("/persistentvolumeclaims")));
    let status = test.api.get(SERVER).unwrap()["status"].to_string();
    assert!(!status.contains("WorkspaceCurrent"), "{status}");
}

#[tokio::test]
async fn a_workspace_has_a_storage_class_that_the_tenant_lists() {
    let (mut test, mut server) = stored();
    let workspace = json!({"mountPath": "/workspace", "storage": "1Gi", "storageClassName": "fast", "accessMode": "ReadWriteOncePod"});
    server.spec.workspace = serde_json::from_value(workspace).unwrap();
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Accepted"), ("False".into(), "StorageClassNotAllowed".into()));
    assert!(test.api.get(SET).is_none());
    let mut tenant = tenant();
    tenant.spec.workspaces.storage_class_names = vec!["fast".into()];
    test.add_tenant(&tenant);
    test.reconcile::<Servers>(&server).await;
    let claim = &test.api.get(SET).unwrap()["spec"]["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["storageClassName"], "fast");
    assert_eq!(claim["accessModes"], json!(["ReadWriteOncePod"]));
    // What has its volume goes on: the class of that cannot be changed.
    tenant.spec.workspaces.storage_class_names.clear();
    test.add_tenant(&tenant);
    let stdio = server.spec.source.stdio.as_mut().unwrap();
    stdio.args = vec!["--other".into()];
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Accepted").0, "True");
    test.api.remove(SET);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Accepted").1, "StorageClassNotAllowed");
    test.api.insert(CLAIM, json!({"metadata": {"name": "workspace-s-1-mcp-files-0", "labels": checked().labels()}}));
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Accepted").0, "True");
}
