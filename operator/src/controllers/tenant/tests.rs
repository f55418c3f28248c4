//! Examples that the tests of the steps share, and reconciles against a fake API server.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mcp_fleet_core::labels::{FINALIZER, Labels};
use mcp_fleet_crds::MCPTenantStatus;
use mcp_fleet_crds::condition::{ConditionReason, ConditionType, NewCondition, merge};
use serde_json::json;

use super::dereference::{Found, Inputs};
use super::validate::Tenant;
use super::*;
use crate::controllers::finalizer::Teardown;
use crate::controllers::identity::ObjectId;
use crate::rollout::Progress;
use crate::testing::TestContext;

pub(crate) fn tenant() -> MCPTenant {
    serde_json::from_value(json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
        "metadata": {"name": "acme", "uid": "u-1", "generation": 1, "creationTimestamp": "2026-11-01T00:00:00Z"},
        "spec": {
            "namespace": {"name": "acme"},
            "hard": {"pods": "20", "count/mcpservers.mcp-fleet.dev": "5"},
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "acme"}}}],
            "images": {"allowed": ["registry.example.com/acme/*"]},
        },
    }))
    .unwrap()
}

pub(crate) fn inputs() -> Inputs {
    Inputs {
        id: ObjectId { name: "acme".into(), uid: "u-1".into() },
        older_claim: None,
        tenant_namespace: Found::Missing,
        runtime_namespace: Found::Missing,
        operator_namespace: "mcp-fleet-system".into(),
    }
}

pub(crate) fn checked() -> Tenant {
    validate(&tenant(), &inputs()).unwrap()
}

const TENANT: &str = "/apis/mcp-fleet.dev/v1alpha1/mcptenants/acme";
const SERVER: &str = "/apis/mcp-fleet.dev/v1alpha1/namespaces/acme/mcpservers/files";
const RUNTIME_NAMESPACE: &str = "/api/v1/namespaces/acme-mcp";
const QUOTA: &str = "/api/v1/namespaces/acme/resourcequotas/mcp-fleet";
const DENY: &str = "/apis/networking.k8s.io/v1/namespaces/acme-mcp/networkpolicies/default-deny";
const GATEWAY: &str = "/apis/apps/v1/namespaces/acme-mcp/deployments/gateway";
const LIMITS: &str = "/api/v1/namespaces/acme-mcp/limitranges/mcp-fleet";

/// A tenant that holds the finalizer.
fn finalized() -> MCPTenant {
    let mut tenant = tenant();
    tenant.metadata.finalizers = Some(vec![FINALIZER.into()]);
    tenant
}

#[tokio::test]
async fn a_new_tenant_gets_the_finalizer_before_anything_is_made() {
    let test = TestContext::new();
    test.api.insert(TENANT, serde_json::to_value(tenant()).unwrap());
    assert_eq!(test.reconcile::<Tenants>(&tenant()).await, ["PATCH mcptenants/acme"]);
}

#[tokio::test]
async fn a_tenant_is_applied_in_order_and_its_status_is_written_last() {
    let test = TestContext::new();
    let writes = test.reconcile::<Tenants>(&finalized()).await;
    let expected = [
        "POST namespaces",
        "PATCH rolebindings/mcp-fleet-operator",
        "POST secrets",
        "POST resourcequotas",
        "POST limitranges",
        "POST networkpolicies",
        "POST networkpolicies",
        "POST secrets",
        "POST serviceaccounts",
        "POST services",
        "POST poddisruptionbudgets",
        "POST deployments",
        "POST namespaces",
        "PATCH rolebindings/mcp-fleet-operator",
        "POST resourcequotas",
        "PATCH configmaps/mcp-fleet-tenant",
        "PUT mcptenants/acme/status",
    ];
    assert_eq!(writes, expected);
    assert_eq!(test.condition(TENANT, "Ready"), ("False".into(), "GatewayUnavailable".into()));
    assert_eq!(test.api.take_events(), ["NamespaceCreated"]);
    // Nothing changed, so nothing is written.
    let status = test.api.get(TENANT).unwrap()["status"].clone();
    let again = MCPTenant { status: serde_json::from_value(status).unwrap(), ..finalized() };
    test.api.take_reads();
    assert_eq!(test.reconcile::<Tenants>(&again).await, Vec::<String>::new());
    // The namespaces are not in this cache, and this quota is never counted.
    let expected = ["/api/v1/namespaces/acme", "/api/v1/namespaces/acme-mcp", QUOTA];
    assert_eq!(test.api.take_reads(), expected);
    let mut counted = test.api.get(QUOTA).unwrap();
    counted["status"] = json!({"hard": counted["spec"]["hard"], "used": counted["spec"]["hard"]});
    test.api.insert(QUOTA, counted);
    test.reconcile::<Tenants>(&again).await;
    assert_eq!(test.api.take_reads(), expected);
    test.api.take_writes();
    test.reconcile::<Tenants>(&again).await;
    assert_eq!(test.api.take_reads(), expected[..2], "a counted quota that nobody changed is not read again");
}

#[tokio::test]
async fn a_rejected_tenant_only_gets_a_status() {
    let test = TestContext::new();
    test.api.insert(RUNTIME_NAMESPACE, json!({"metadata": {"name": "acme-mcp"}}));
    assert_eq!(test.reconcile::<Tenants>(&finalized()).await, ["PUT mcptenants/acme/status"]);
    assert_eq!(test.condition(TENANT, "Ready"), ("False".into(), "NamespaceNotAdoptable".into()));
    assert_eq!(test.condition(TENANT, "Stalled").0, "True");
}

/// A tenant whose objects exist and whose status says that it is ready.
async fn ready() -> (TestContext, MCPTenant) {
    let test = TestContext::new();
    test.api.insert(TENANT, serde_json::to_value(finalized()).unwrap());
    test.reconcile::<Tenants>(&finalized()).await;
    test.api.take_events();
    let mut tenant = finalized();
    let ready = NewCondition::yes(ConditionType::Ready, ConditionReason::Reconciled, "");
    let time = Time(Timestamp::UNIX_EPOCH);
    let conditions = merge(&[], &[ready], tenant.metadata.generation, &time);
    tenant.status = Some(MCPTenantStatus { observed_generation: Some(1), conditions, ..Default::default() });
    (test, tenant)
}

#[tokio::test]
async fn an_object_that_someone_deleted_is_restored_and_reported() {
    let (test, tenant) = ready().await;
    test.api.remove(DENY);
    let (kind, namespace, name) = ("NetworkPolicy".into(), "acme-mcp".into(), "default-deny".into());
    test.ctx.cache.owned.remove(&crate::kubernetes::cache::Key { kind, namespace, name });
    assert!(test.reconcile::<Tenants>(&tenant).await.contains(&"POST networkpolicies".into()));
    assert!(test.api.take_events().contains(&"PutBack".into()));
}

#[tokio::test]
async fn an_object_that_someone_changed_is_restored_and_reported_also_by_a_new_leader() {
    let (test, tenant) = ready().await;
    let test = test.restarted();
    let mut deny = test.api.get(DENY).unwrap();
    deny["spec"]["podSelector"] = json!({"matchLabels": {"app": "none"}});
    test.api.insert(DENY, deny);
    assert!(test.reconcile::<Tenants>(&tenant).await.contains(&"PATCH networkpolicies/default-deny".into()));
    assert_eq!(test.api.take_events(), ["PutBack"]);
}

/// A new version of the operator renders objects in another way, or renders more of them.
#[tokio::test]
async fn what_an_upgrade_of_the_operator_renders_is_applied_but_not_reported_as_tampering() {
    let (test, tenant) = ready().await;
    let test = test.restarted();
    // An earlier version applied other limits, and no default-deny policy.
    let mut limits = test.api.get(LIMITS).unwrap();
    limits["spec"]["limits"][0]["default"]["cpu"] = json!("2");
    limits["metadata"]["annotations"]["mcp-fleet.dev/applied"] = json!("another digest");
    test.api.insert(LIMITS, limits);
    test.api.remove(DENY);
    let writes = test.reconcile::<Tenants>(&tenant).await;
    assert!(writes.contains(&"PATCH limitranges/mcp-fleet".into()), "{writes:?}");
    assert!(writes.contains(&"POST networkpolicies".into()), "{writes:?}");
    assert_eq!(test.api.take_events(), Vec::<String>::new());
}

#[tokio::test]
async fn a_binding_to_another_role_is_created_again() {
    let (test, tenant) = ready().await;
    let binding = "/apis/rbac.authorization.k8s.io/v1/namespaces/acme/rolebindings/mcp-fleet-operator";
    let mut foreign = test.api.get(binding).unwrap();
    foreign["roleRef"]["name"] = json!("view");
    foreign["metadata"]["finalizers"] = json!(["test/held"]);
    test.api.insert(binding, foreign);
    test.add_owned("RoleBinding", "acme", "mcp-fleet-operator", labels::of_tenant("access", "acme", "u-1"));
    let writes = test.reconcile::<Tenants>(&tenant).await;
    let expected = [
        "PATCH rolebindings/mcp-fleet-operator",
        "DELETE rolebindings/mcp-fleet-operator",
        "PATCH rolebindings/mcp-fleet-operator",
    ];
    assert_eq!(writes[..3], expected);
    assert_eq!(test.api.get(binding).unwrap()["roleRef"]["name"], "mcp-fleet-operator-tenant");
    assert!(test.api.take_events().contains(&"PutBack".into()));
}

#[tokio::test]
async fn an_object_that_someone_changed_is_read_and_restored() {
    let (test, tenant) = ready().await;
    let mut policy = test.api.get(DENY).unwrap();
    policy["spec"]["policyTypes"] = json!(["Ingress"]);
    test.api.insert(DENY, policy);
    assert_eq!(
        test.reconcile::<Tenants>(&tenant).await,
        Vec::<String>::new(),
        "the watch has not delivered the change"
    );
    test.add_owned("NetworkPolicy", "acme-mcp", "default-deny", labels::of_tenant("network", "acme", "u-1"));
    assert_eq!(test.reconcile::<Tenants>(&tenant).await, ["PATCH networkpolicies/default-deny"]);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_taken_over() {
    let test = TestContext::new();
    test.api.insert(TENANT, serde_json::to_value(finalized()).unwrap());
    let foreign = json!({"kind": "NetworkPolicy", "metadata": {"name": "default-deny", "namespace": "acme-mcp"}});
    test.api.insert(DENY, foreign.clone());
    assert!(Tenants::reconcile(Arc::new(finalized()), test.ctx.clone()).await.is_err());
    assert_eq!(test.api.get(DENY), Some(foreign));
    assert_eq!(test.condition(TENANT, "Ready"), ("False".into(), "Failed".into()));
}

#[tokio::test]
async fn an_edit_of_the_spec_is_applied_but_not_reported_as_tampering() {
    let (test, mut tenant) = ready().await;
    tenant.metadata.generation = Some(2);
    tenant.spec.hard.insert("pods".into(), Quantity("30".into()));
    assert!(test.reconcile::<Tenants>(&tenant).await.contains(&"PATCH resourcequotas/mcp-fleet".into()));
    assert!(!test.api.take_events().contains(&"PutBack".into()), "the operator's own change was reported");
}

#[tokio::test]
async fn a_deleted_tenant_waits_for_its_pods_and_then_releases_the_finalizer() {
    let (test, mut tenant) = ready().await;
    let pod = format!("{RUNTIME_NAMESPACE}/pods/gateway-1");
    test.api.insert(&pod, json!({"metadata": {"name": "gateway-1"}}));
    tenant.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    test.api.insert(TENANT, serde_json::to_value(&tenant).unwrap());
    let labels = labels::of_tenant("gateway", "acme", "u-1");
    test.add_owned("Deployment", "acme-mcp", "gateway", labels);
    assert_eq!(test.reconcile::<Tenants>(&tenant).await, ["PATCH deployments/gateway", "PUT mcptenants/acme/status"]);
    assert_eq!(test.condition(TENANT, "Ready"), ("False".into(), "Terminating".into()));

    test.api.remove(&pod);
    let writes = test.reconcile::<Tenants>(&tenant).await;
    let position = |write: &str| writes.iter().position(|found| found == write).unwrap_or_else(|| panic!("{writes:?}"));
    assert!(position("DELETE secrets/gateway-tls") < position("DELETE namespaces/acme-mcp"));
    assert_eq!(position("PATCH mcptenants/acme"), writes.len() - 1, "{writes:?}");
}

/// The pods of a lost node stay until someone deletes the node.
#[tokio::test]
async fn a_tenant_whose_pods_do_not_end_is_looked_after_less_and_less_often() {
    let (mut test, mut tenant) = ready().await;
    test.add_tenant(&tenant);
    test.api.insert("/api/v1/namespaces/acme-mcp/pods/gateway-1", json!({"metadata": {"name": "gateway-1"}}));
    let mut pauses = Vec::new();
    for minutes in [0, 1, 60] {
        tenant.metadata.deletion_timestamp = Some(Time(Timestamp::now() - Duration::from_mins(minutes)));
        match tear_down(&tenant, &test.ctx).await.unwrap() {
            Teardown::Unfinished(pause) => pauses.push(pause),
            Teardown::Done => panic!("the pod has not ended"),
        }
    }
    assert!(pauses[0] < Duration::from_secs(1), "{pauses:?}");
    assert!(pauses[1] > Duration::from_secs(4) && pauses[2] > Duration::from_secs(20), "{pauses:?}");
    let deleted = test.api.take_writes().iter().any(|write| write.method == http::Method::DELETE);
    assert!(!deleted, "something was deleted under running pods");
}

#[tokio::test]
async fn a_new_image_comes_to_a_tenant_with_the_rollout() {
    let (mut test, tenant) = ready().await;
    test.add_tenant(&tenant);
    test.add_owned("Deployment", "acme-mcp", "gateway", labels::of_tenant("gateway", "acme", "u-1"));
    let test = test.upgraded("mcp-fleet.local/mcp-pod:next");
    let progress = || test.ctx.rollout.progress("u-1");
    let image = || test.api.get(GATEWAY).unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(test.reconcile::<Tenants>(&tenant).await, Vec::<String>::new());
    assert_eq!(progress(), Progress::Pending { image: "mcp-fleet.local/mcp-pod:dev".into() });

    assert_eq!(test.ctx.rollout.advance(&test.ctx).0.begin, ["u-1"]);
    assert_eq!(test.reconcile::<Tenants>(&tenant).await, ["PATCH deployments/gateway"]);
    assert_eq!((progress(), image()), (Progress::Updating, json!("mcp-fleet.local/mcp-pod:next")));
    assert_eq!(test.api.take_events(), Vec::<String>::new(), "the rollout was reported as tampering");
}

#[tokio::test]
async fn a_tenant_is_updated_until_its_gateway_is_available_again() {
    let (mut test, tenant) = ready().await;
    test.add_tenant(&tenant);
    let set_available = |test: &TestContext| {
        let mut gateway = test.api.get(GATEWAY).unwrap();
        gateway["status"] = json!({"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1});
        test.api.insert(GATEWAY, gateway);
    };
    set_available(&test);
    test.add_owned("Deployment", "acme-mcp", "gateway", labels::of_tenant("gateway", "acme", "u-1"));
    let test = test.upgraded("mcp-fleet.local/mcp-pod:next");
    test.reconcile::<Tenants>(&tenant).await;
    test.ctx.rollout.advance(&test.ctx);
    test.reconcile::<Tenants>(&tenant).await;
    let (decided, changed) = test.ctx.rollout.advance(&test.ctx);
    assert_eq!((decided.updating, decided.updated, changed.len()), (1, 0, 0));
    set_available(&test);
    test.reconcile::<Tenants>(&tenant).await;
    let (decided, changed) = test.ctx.rollout.advance(&test.ctx);
    assert_eq!((decided.updating, decided.updated, changed.len()), (0, 1, 1));
    assert_eq!(test.ctx.rollout.progress("u-1"), Progress::Updated);
}

/// Labels of the objects of a server.
fn of_server(name: &str, uid: &str) -> Labels {
    let mut labels = labels::of_tenant("server", "acme", "u-1");
    labels.insert(labels::SERVER.into(), name.into());
    labels.insert(labels::SERVER_UID.into(), uid.into());
    labels
}

/// A tenant that is reconciled while its cache holds no servers, and the API server has `files` with this UID, if any.
async fn deleted_with(server: Option<&str>, owned: &[(&str, &str, Labels)]) -> Vec<String> {
    let (test, tenant) = ready().await;
    if let Some(uid) = server {
        test.api.insert(SERVER, json!({"metadata": {"name": "files", "namespace": "acme", "uid": uid}}));
    }
    for (kind, name, labels) in owned {
        test.add_owned(kind, "acme-mcp", name, labels.clone());
    }
    let writes = test.reconcile::<Tenants>(&tenant).await;
    writes.into_iter().filter(|write| write.starts_with("DELETE")).collect()
}

#[tokio::test]
async fn a_server_that_only_the_cache_misses_loses_nothing() {
    let set = ("StatefulSet", "mcp-files", of_server("files", "s-1"));
    assert_eq!(deleted_with(Some("s-1"), &[set]).await, Vec::<String>::new());
}

#[tokio::test]
async fn objects_of_a_server_that_is_gone_are_deleted_and_its_policy_last() {
    let policy = ("NetworkPolicy", "mcp-files", of_server("files", "s-1"));
    let set = ("StatefulSet", "mcp-files", of_server("files", "s-1"));
    let expected = ["DELETE statefulsets/mcp-files", "DELETE networkpolicies/mcp-files"];
    assert_eq!(deleted_with(None, &[policy, set]).await, expected);
}

#[tokio::test]
async fn a_new_server_of_the_same_name_keeps_its_objects() {
    let old = ("Deployment", "mcp-files", of_server("files", "s-1"));
    let new = ("StatefulSet", "mcp-files", of_server("files", "s-2"));
    assert_eq!(deleted_with(Some("s-2"), &[old, new]).await, ["DELETE deployments/mcp-files"]);
}

#[tokio::test]
async fn a_tenant_that_changed_since_it_was_cached_loses_nothing() {
    let (test, tenant) = ready().await;
    test.add_owned("ResourceQuota", "acme-mcp", "former", labels::of_tenant("quota", "acme", "u-1"));
    let mut newer = serde_json::to_value(&tenant).unwrap();
    newer["metadata"]["generation"] = json!(2);
    test.api.insert(TENANT, newer);
    let deleted = "DELETE resourcequotas/former".to_owned();
    assert!(!test.reconcile::<Tenants>(&tenant).await.contains(&deleted));
    test.api.insert(TENANT, serde_json::to_value(&tenant).unwrap());
    assert!(test.reconcile::<Tenants>(&tenant).await.contains(&deleted));
}

#[tokio::test]
async fn a_tenant_that_only_the_cache_holds_as_deleted_is_not_torn_down() {
    let (test, mut tenant) = ready().await;
    test.api.insert(TENANT, serde_json::to_value(&tenant).unwrap());
    tenant.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let writes = test.reconcile::<Tenants>(&tenant).await;
    assert!(!writes.iter().any(|write| write.starts_with("DELETE")), "{writes:?}");
}

const CERTIFICATE: &str = "/api/v1/namespaces/acme/secrets/public";
const COPY: &str = "/api/v1/namespaces/acme-mcp/secrets/gateway-public-tls";

/// Stores a certificate for this name as the tenant's people would.
fn store_certificate(test: &TestContext, name: &str) {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let bytes = |text: String| json!(k8s_openapi::ByteString(text.into_bytes()));
    let data =
        json!({"tls.crt": bytes(pair.cert.pem()), "tls.key": bytes(pair.signing_key.serialize_pem()), "ca.crt": ""});
    test.api.insert(CERTIFICATE, json!({"metadata": {"name": "public"}, "type": "kubernetes.io/tls", "data": data}));
}

#[tokio::test]
async fn a_checked_certificate_is_copied_and_one_that_is_refused_changes_nothing() {
    let test = TestContext::new();
    test.add_owned("RoleBinding", "acme", "mcp-fleet-operator", labels::of_tenant("access", "acme", "u-1"));
    let mut tenant = finalized();
    tenant.spec.endpoint =
        serde_json::from_value(json!({"hostname": "mcp.example.com", "certificateSecretRef": {"name": "public"}}))
            .unwrap();
    let endpoint_ready = || test.condition(TENANT, "EndpointReady").1;
    test.reconcile::<Tenants>(&tenant).await;
    assert_eq!((endpoint_ready(), test.api.get(COPY)), ("CertificateMissing".into(), None));
    tenant.status = None;
    store_certificate(&test, "mcp.example.com");
    test.reconcile::<Tenants>(&tenant).await;
    assert_eq!(endpoint_ready(), "AwaitingGateway");
    let (copy, source) = (test.api.get(COPY).unwrap(), test.api.get(CERTIFICATE).unwrap());
    let keys: Vec<&str> = copy["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((keys, &copy["data"]["tls.crt"]), (vec!["tls.crt", "tls.key"], &source["data"]["tls.crt"]));
    assert!(!test.reconcile::<Tenants>(&tenant).await.iter().any(|write| write.contains("secrets")));
    store_certificate(&test, "other.example.com");
    test.reconcile::<Tenants>(&tenant).await;
    assert_eq!(
        (endpoint_ready(), test.api.get(COPY).unwrap()["data"].clone()),
        ("CertificateRefused".into(), copy["data"].clone())
    );
    store_certificate(&test, "mcp.example.com");
    let writes = test.reconcile::<Tenants>(&tenant).await;
    assert!(writes.contains(&"PUT secrets/gateway-public-tls".into()), "{writes:?}");
}

const PULL_SECRET: &str = "/api/v1/namespaces/mcp-fleet-system/secrets/registry";
const PULL_COPY: &str = "/api/v1/namespaces/acme-mcp/secrets/image-pull.registry";

fn pull_secret(kind: &str, labels: &Labels) -> serde_json::Value {
    json!({
        "metadata": {"name": "registry", "namespace": "mcp-fleet-system", "labels": labels},
        "type": kind,
        "data": {".dockerconfigjson": "b25l", "other": "b3RoZXI="},
    })
}

#[tokio::test]
async fn the_pull_secrets_of_the_installation_are_copied_before_gateways_need_them() {
    let test = TestContext::new().configured(|config| config.image_pull_secrets = vec!["registry".into()]);
    test.api.insert(PULL_SECRET, pull_secret("kubernetes.io/dockerconfigjson", &Labels::new()));
    let writes = test.reconcile::<Tenants>(&finalized()).await;
    let position = |write: &str| writes.iter().rposition(|it| it == write).unwrap();
    assert!(position("POST secrets") < position("POST deployments"));
    let copy = test.api.get(PULL_COPY).unwrap();
    assert_eq!(copy["type"], "kubernetes.io/dockerconfigjson");
    assert_eq!(copy["data"], json!({".dockerconfigjson": "b25l"}));
    assert_eq!(copy["metadata"]["labels"][labels::TENANT_UID], "u-1");
    let pod = &test.api.get(GATEWAY).unwrap()["spec"]["template"]["spec"];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "image-pull.registry"}]));
    // One that is not named any more.
    test.show_secret(PULL_COPY);
    let test = test.configured(|config| config.image_pull_secrets.clear());
    let writes = test.reconcile::<Tenants>(&finalized()).await;
    assert!(writes.contains(&"DELETE secrets/image-pull.registry".to_owned()), "{writes:?}");
}

#[tokio::test]
async fn a_pull_secret_of_the_installation_that_cannot_be_used_keeps_no_tenant_from_running() {
    let ours = labels::common("ca");
    for secret in
        [None, Some(pull_secret("Opaque", &Labels::new())), Some(pull_secret("kubernetes.io/dockerconfigjson", &ours))]
    {
        let test = TestContext::new().configured(|config| config.image_pull_secrets = vec!["registry".into()]);
        if let Some(secret) = secret {
            test.api.insert(PULL_SECRET, secret);
        }
        let writes = test.reconcile::<Tenants>(&finalized()).await;
        assert!(writes.contains(&"POST deployments".to_owned()));
        assert!(test.api.get(PULL_COPY).is_none());
    }
}
