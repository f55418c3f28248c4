//! Reconciles of servers that are configured with Secrets and `ConfigMap`s, against a fake API server.

use mcp_fleet_core::labels::{self, FINALIZER};
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::tenant::Enforcement;
use serde_json::{Value, json};

use crate::controllers::server::Servers;
use crate::controllers::server::tests::{SERVER, SET, message_of, server, with_tenant};
use crate::controllers::tenant::tests::tenant;
use crate::kubernetes::cache::Key;
use crate::testing::TestContext;

const SECRET: &str = "/api/v1/namespaces/acme/secrets/api";
const CONFIG_MAP: &str = "/api/v1/namespaces/acme/configmaps/settings";
const COPY: &str = "/api/v1/namespaces/acme-mcp/secrets/mcp-files.secret.api";
const COPY_OF_MAP: &str = "/api/v1/namespaces/acme-mcp/secrets/mcp-files.configmap.settings";

/// A server with a variable from a Secret and files from a `ConfigMap`.
fn configured() -> MCPServer {
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let stdio = server.spec.source.stdio.as_mut().unwrap();
    let token = json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}});
    stdio.env.push(serde_json::from_value(token).unwrap());
    let files = json!({"mountPath": "/etc/files", "configMapRef": {"name": "settings"}});
    stdio.files.push(serde_json::from_value(files).unwrap());
    server
}

fn secret(token: &str) -> Value {
    json!({
        "metadata": {"name": "api", "namespace": "acme", "labels": {"mcp-fleet.dev/server.files": ""}},
        "data": {"token": token, "other": "b3RoZXI="},
    })
}

fn with_sources() -> TestContext {
    let test = with_tenant();
    test.api.insert(SECRET, secret("b25l"));
    let map = json!({"metadata": {"name": "settings", "namespace": "acme"}, "data": {"a.toml": "a = 1"}});
    test.api.insert(CONFIG_MAP, map);
    test
}

fn version(test: &TestContext) -> Value {
    let set = test.api.get(SET).unwrap();
    set["spec"]["template"]["metadata"]["annotations"]["mcp-fleet.dev/config-version"].clone()
}

#[tokio::test]
async fn what_is_referred_to_is_copied_before_the_pods_are_made() {
    let test = with_sources();
    let writes = test.reconcile::<Servers>(&configured()).await;
    let expected =
        ["POST secrets", "POST secrets", "POST secrets", "POST networkpolicies", "POST services", "POST statefulsets"];
    assert_eq!(writes[..6], expected);
    let copy = test.api.get(COPY).unwrap();
    assert_eq!(copy["data"], json!({"token": "b25l"}), "nothing else of it");
    assert_eq!(copy["metadata"]["labels"]["app.kubernetes.io/component"], "server-config");
    assert_eq!(test.api.get(COPY_OF_MAP).unwrap()["data"], json!({"a.toml": "YSA9IDE="}));
    assert!(version(&test).is_string());
    assert!(!test.api.get(SET).unwrap().to_string().contains("b25l"));
}

#[tokio::test]
async fn new_contents_are_copied_and_make_new_pods_unless_that_is_ignored() {
    for (on_change, makes_new) in [("Restart", true), ("Ignore", false)] {
        let (test, mut server) = (with_sources(), configured());
        server.spec.source.stdio.as_mut().unwrap().on_change = serde_json::from_value(json!(on_change)).unwrap();
        test.reconcile::<Servers>(&server).await;
        let before = version(&test);
        test.reconcile::<Servers>(&server).await;
        assert_eq!(version(&test), before);
        // Its metadata alone is nobody's configuration.
        let mut annotated = secret("b25l");
        annotated["metadata"]["annotations"] = json!({"refreshed": "now"});
        test.api.insert(SECRET, annotated);
        test.reconcile::<Servers>(&server).await;
        assert_eq!(version(&test), before);
        test.api.insert(SECRET, secret("dHdv"));
        let writes = test.reconcile::<Servers>(&server).await;
        assert!(writes.contains(&"PUT secrets/mcp-files.secret.api".to_owned()), "{writes:?}");
        assert_eq!(version(&test) != before, makes_new, "{on_change}");
    }
}

#[tokio::test]
async fn a_server_whose_configuration_is_missing_says_so_and_what_runs_goes_on() {
    let (test, mut server) = (with_sources(), configured());
    test.api.remove(SECRET);
    assert_eq!(test.reconcile::<Servers>(&server).await, ["PUT mcpservers/files/status"]);
    assert_eq!(test.condition(SERVER, "Accepted"), ("False".into(), "ConfigNotFound".into()));
    assert_eq!(
        message_of(&test, "Stalled"),
        "the Secret api does not exist in the server's namespace; create it there"
    );
    test.api.insert(SECRET, secret("b25l"));
    test.reconcile::<Servers>(&server).await;
    let before = test.api.get(SET).unwrap();
    test.api.remove(SECRET);
    // Its certificate is renewed all the same.
    test.api.remove("/api/v1/namespaces/acme-mcp/secrets/mcp-files-tls");
    test.ctx.cache.secrets.doubt("acme-mcp", "mcp-files-tls");
    server.spec.source.stdio.as_mut().unwrap().args = vec!["--other".into()];
    let writes = test.reconcile::<Servers>(&server).await;
    assert_eq!(writes, ["POST secrets", "PUT mcpservers/files/status"]);
    assert_eq!(test.api.get(SET).unwrap()["spec"]["template"], before["spec"]["template"]);
    assert!(message_of(&test, "Stalled").ends_with("; what was accepted before goes on running"));
}

#[tokio::test]
async fn what_is_optional_comes_and_goes_while_the_server_runs() {
    let (test, mut server) = (with_sources(), configured());
    let stdio = server.spec.source.stdio.as_mut().unwrap();
    let extra = |key: &str| json!({"secretKeyRef": {"name": "api", "key": key, "optional": true}});
    let variables =
        json!([{"name": "TOKEN", "valueFrom": extra("token")}, {"name": "MORE", "valueFrom": extra("more")}]);
    stdio.env = serde_json::from_value(variables).unwrap();
    let keys = || {
        let copy = test.api.get(COPY).unwrap();
        let data = copy["data"].as_object();
        data.into_iter().flat_map(|data| data.keys().cloned()).collect::<Vec<_>>()
    };
    let mut versions = Vec::new();
    for (contents, expected) in [
        (None, &[][..]),
        (Some(json!({"token": "b25l"})), &["token"]),
        (Some(json!({"token": "b25l", "more": "bQ=="})), &["more", "token"]),
        // New pods start before old ones are gone, and must not find what was taken away.
        (Some(json!({"token": "b25l"})), &["token"]),
        (None, &[]),
    ] {
        let mut secret = secret("");
        secret["data"] = contents.clone().unwrap_or_default();
        test.api.insert(SECRET, secret);
        if contents.is_none() {
            test.api.remove(SECRET);
        }
        test.reconcile::<Servers>(&server).await;
        assert_eq!(keys(), expected);
        versions.push(version(&test));
    }
    assert!(versions.windows(2).all(|pair| pair[0] != pair[1]), "{versions:?}");
    assert_eq!((&versions[0], &versions[1]), (&versions[4], &versions[3]));
    let template = &test.api.get(SET).unwrap()["spec"]["template"]["spec"];
    let reference = json!({"name": "mcp-files.secret.api", "key": "more", "optional": true});
    assert!(template["containers"][0]["env"].to_string().contains(&reference.to_string()), "{template}");
    let mut secret = secret("b25l");
    secret["metadata"]["labels"] = json!({});
    test.api.insert(SECRET, secret);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), "ConfigRefused".into()));
}

#[tokio::test]
async fn a_secret_that_does_not_name_the_server_is_refused() {
    let test = with_sources();
    let mut secret = secret("b25l");
    secret["metadata"]["labels"] = json!({"mcp-fleet.dev/server.mail": ""});
    test.api.insert(SECRET, secret);
    test.reconcile::<Servers>(&configured()).await;
    assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), "ConfigRefused".into()));
    assert!(test.api.get(COPY).is_none());
}

#[tokio::test]
async fn copies_that_are_not_needed_any_more_are_deleted_once_the_pods_are_replaced() {
    let (test, mut server) = (with_sources(), configured());
    test.api.insert(SERVER, serde_json::to_value(&server).unwrap());
    test.reconcile::<Servers>(&server).await;
    server.spec.source.stdio.as_mut().unwrap().env.clear();
    test.reconcile::<Servers>(&server).await;
    assert!(test.api.get(COPY).is_some(), "an old pod may need it");
    make_available(&test);
    for path in [COPY, COPY_OF_MAP, "/api/v1/namespaces/acme-mcp/secrets/mcp-files-tls"] {
        test.show_secret(path);
    }
    let writes = test.reconcile::<Servers>(&server).await;
    assert!(writes.contains(&"DELETE secrets/mcp-files.secret.api".to_owned()), "{writes:?}");
    assert!(test.api.get(COPY_OF_MAP).is_some());
}

/// Has the API server say that all pods are as they are declared.
fn make_available(test: &TestContext) {
    let mut set = test.api.get(SET).unwrap();
    let generation = set["metadata"]["generation"].as_i64().unwrap_or(0);
    set["status"] = json!({"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1});
    test.api.insert(SET, set);
    let (kind, namespace, name) = ("StatefulSet".into(), "acme-mcp".into(), "mcp-files".into());
    test.ctx.cache.owned.remove(&Key { kind, namespace, name });
}

#[tokio::test]
async fn a_key_stays_in_a_copy_until_no_pod_needs_it() {
    let (test, mut server) = (with_sources(), configured());
    test.reconcile::<Servers>(&server).await;
    let other = json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "other"}}});
    server.spec.source.stdio.as_mut().unwrap().env = vec![serde_json::from_value(other).unwrap()];
    test.reconcile::<Servers>(&server).await;
    let keys = || test.api.get(COPY).unwrap()["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(), ["other", "token"]);
    let after = version(&test);
    make_available(&test);
    test.reconcile::<Servers>(&server).await;
    assert_eq!((keys(), version(&test)), (vec!["other".to_owned()], after), "and the pods stay");
    test.reconcile::<Servers>(&server).await;
    assert_eq!(keys(), ["other"]);
}

#[tokio::test]
async fn a_maintained_server_is_stopped_if_it_does_not_fit() {
    let (mut test, mut server) = (with_sources(), configured());
    test.add_server(&server);
    test.reconcile::<Servers>(&server).await;
    let mut tenant = tenant();
    tenant.spec.enforcement = Enforcement::ScaleToZero;
    tenant.spec.hard.insert("pods".into(), serde_json::from_value(json!("1")).unwrap());
    test.add_tenant(&tenant);
    test.api.remove(SECRET);
    server.metadata.generation = Some(2);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.api.get(SET).unwrap()["spec"]["replicas"], 0);
}

#[tokio::test]
async fn a_server_that_is_kept_rejected_gets_the_pods_that_its_tenant_requires() {
    let (mut test, server) = (with_sources(), configured());
    test.reconcile::<Servers>(&server).await;
    test.api.remove(SECRET);
    let mut tenant = tenant();
    // A changed default is no reason to stop it.
    tenant.spec.enforcement = Enforcement::ScaleToZero;
    for class in ["kata", "kata-2"] {
        tenant.spec.server_pods = serde_json::from_value(json!({
            "nodeSelector": {"pool": "tools"}, "runtimeClassName": class, "labels": {"cost": "acme"},
        }))
        .unwrap();
        test.add_tenant(&tenant);
        test.reconcile::<Servers>(&server).await;
        assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), "ConfigNotFound".into()));
        let spec = &test.api.get(SET).unwrap()["spec"];
        let (template, pod) = (&spec["template"], &spec["template"]["spec"]);
        assert_eq!((&pod["runtimeClassName"], &pod["nodeSelector"]), (&json!(class), &json!({"pool": "tools"})));
        assert_eq!((&template["metadata"]["labels"]["cost"], &spec["replicas"]), (&json!("acme"), &json!(1)));
    }
}

#[tokio::test]
async fn a_server_with_overlapping_directories_is_rejected_and_what_runs_is_maintained() {
    let (test, mut server) = (with_sources(), configured());
    test.reconcile::<Servers>(&server).await;
    let scratch = json!({"mountPath": "/workspace/cache", "sizeLimit": "1Gi"});
    server.spec.source.stdio.as_mut().unwrap().scratch = vec![serde_json::from_value(scratch).unwrap()];
    test.api.remove("/api/v1/namespaces/acme-mcp/secrets/mcp-files-tls");
    test.ctx.cache.secrets.doubt("acme-mcp", "mcp-files-tls");
    assert_eq!(test.reconcile::<Servers>(&server).await, ["POST secrets", "PUT mcpservers/files/status"]);
    assert_eq!(test.condition(SERVER, "Accepted"), ("False".into(), "InvalidSpec".into()));
    assert!(message_of(&test, "Stalled").contains("/workspace and /workspace/cache"));
}

#[tokio::test]
async fn what_the_tenants_image_does_not_know_is_not_used_yet() {
    let (test, mut server) = (with_sources(), configured());
    server.spec.source.stdio.as_mut().unwrap().files.clear();
    test.reconcile::<Servers>(&server).await;
    let gateway = json!({"metadata": {"name": "gateway", "namespace": "acme-mcp"}, "spec": {"selector": {}, "template": {"spec": {
        "containers": [{"name": "gateway", "image": "mcp-fleet.local/mcp-pod:dev"}],
    }}}});
    test.api.insert("/apis/apps/v1/namespaces/acme-mcp/deployments/gateway", gateway);
    test.add_owned("Deployment", "acme-mcp", "gateway", labels::of_tenant("gateway", "acme", "u-1"));
    let test = test.upgraded("mcp-fleet.local/mcp-pod:later");
    let scratch = json!({"mountPath": "/var/cache", "sizeLimit": "1Gi"});
    server.spec.source.stdio.as_mut().unwrap().scratch = vec![serde_json::from_value(scratch).unwrap()];
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), "Progressing".into()));
    assert!(!test.api.get(SET).unwrap().to_string().contains("--scratch"));
}

const PULL_SECRET: &str = "/api/v1/namespaces/acme/secrets/registry";
const PULL_COPY: &str = "/api/v1/namespaces/acme-mcp/secrets/mcp-files.pull.registry";

/// A Secret with credentials for a registry, for the server `files`.
fn pull_secret(password: &str) -> Value {
    json!({
        "metadata": {"name": "registry", "namespace": "acme", "labels": {"mcp-fleet.dev/server.files": ""}},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": password, "other": "b3RoZXI="},
    })
}

/// A server whose image is pulled with a Secret.
fn private() -> MCPServer {
    let mut server = server();
    server.metadata.finalizers = Some(vec![FINALIZER.into()]);
    server.spec.image_pull_secrets = serde_json::from_value(json!([{"name": "registry"}])).unwrap();
    server
}

#[tokio::test]
async fn a_pull_secret_is_copied_and_pods_refer_to_the_copy() {
    let test = with_tenant();
    test.api.insert(PULL_SECRET, pull_secret("b25l"));
    test.reconcile::<Servers>(&private()).await;
    let copy = test.api.get(PULL_COPY).unwrap();
    assert_eq!(copy["type"], "kubernetes.io/dockerconfigjson");
    assert_eq!(copy["data"], json!({".dockerconfigjson": "b25l"}), "nothing else of it");
    let template = &test.api.get(SET).unwrap()["spec"]["template"];
    assert_eq!(template["spec"]["imagePullSecrets"], json!([{"name": "mcp-files.pull.registry"}]));
    assert!(!template["spec"]["containers"].to_string().contains("registry\""), "the program sees nothing of it");
}

#[tokio::test]
async fn a_new_pull_secret_is_copied_and_pods_go_on() {
    let test = with_tenant();
    test.api.insert(PULL_SECRET, pull_secret("b25l"));
    test.reconcile::<Servers>(&private()).await;
    let before = test.api.get(SET).unwrap()["spec"].clone();
    test.api.insert(PULL_SECRET, pull_secret("dHdv"));
    test.reconcile::<Servers>(&private()).await;
    assert_eq!(test.api.get(PULL_COPY).unwrap()["data"][".dockerconfigjson"], "dHdv");
    assert_eq!(test.api.get(SET).unwrap()["spec"], before);
}

#[tokio::test]
async fn a_pull_secret_that_may_not_be_used_is_refused() {
    let mut unlabelled = pull_secret("b25l");
    unlabelled["metadata"]["labels"] = json!({});
    let mut opaque = pull_secret("b25l");
    opaque["type"] = json!("Opaque");
    let mut ours = pull_secret("b25l");
    ours["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("mcp-fleet");
    for (secret, expected) in [
        (None, ("ConfigNotFound", "the Secret registry does not exist")),
        (Some(unlabelled), ("ConfigRefused", "give it the label mcp-fleet.dev/server.files")),
        (Some(opaque), ("ConfigRefused", "its type is not kubernetes.io/dockerconfigjson")),
        (Some(ours), ("ConfigRefused", "MCP Fleet made it")),
    ] {
        let test = with_tenant();
        if let Some(secret) = secret {
            test.api.insert(PULL_SECRET, secret);
        }
        test.reconcile::<Servers>(&private()).await;
        assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), expected.0.into()));
        assert!(message_of(&test, "Stalled").contains(expected.1), "{}", message_of(&test, "Stalled"));
        assert!(test.api.get(PULL_COPY).is_none());
    }
}

#[tokio::test]
async fn a_pull_secret_of_the_tenant_needs_no_label() {
    let mut test = with_tenant();
    let mut tenant = tenant();
    tenant.spec.images.pull_secrets = serde_json::from_value(json!([{"name": "registry"}])).unwrap();
    test.add_tenant(&tenant);
    let mut secret = pull_secret("b25l");
    secret["metadata"]["labels"] = json!({});
    test.api.insert(PULL_SECRET, secret);
    let mut server = private();
    server.spec.image_pull_secrets.clear();
    test.reconcile::<Servers>(&server).await;
    let template = &test.api.get(SET).unwrap()["spec"]["template"];
    assert_eq!(template["spec"]["imagePullSecrets"], json!([{"name": "mcp-files.pull.registry"}]));
}

#[tokio::test]
async fn pods_keep_their_pull_secret_when_it_is_missing() {
    let test = with_tenant();
    test.api.insert(PULL_SECRET, pull_secret("b25l"));
    test.reconcile::<Servers>(&private()).await;
    let before = test.api.get(SET).unwrap()["spec"].clone();
    test.api.remove(PULL_SECRET);
    test.reconcile::<Servers>(&private()).await;
    assert_eq!(test.condition(SERVER, "Ready"), ("False".into(), "ConfigNotFound".into()));
    assert_eq!(test.api.get(SET).unwrap()["spec"], before);
    assert!(test.api.get(PULL_COPY).is_some());
}

#[tokio::test]
async fn a_pull_secret_of_the_tenant_that_cannot_be_used_stops_no_server() {
    let mut opaque = pull_secret("b25l");
    opaque["type"] = json!("Opaque");
    for secret in [None, Some(opaque)] {
        let mut test = with_tenant();
        let mut tenant = tenant();
        tenant.spec.images.pull_secrets = serde_json::from_value(json!([{"name": "registry"}])).unwrap();
        test.add_tenant(&tenant);
        if let Some(secret) = secret {
            test.api.insert(PULL_SECRET, secret);
        }
        let mut server = private();
        server.spec.image_pull_secrets.clear();
        test.reconcile::<Servers>(&server).await;
        assert_eq!(test.condition(SERVER, "Accepted").0, "True");
        assert!(test.api.get(PULL_COPY).is_none());
        let before = test.api.get(SET).unwrap()["spec"].clone();
        test.api.insert(PULL_SECRET, pull_secret("b25l"));
        test.reconcile::<Servers>(&server).await;
        assert!(test.api.get(PULL_COPY).is_some());
        assert_eq!(test.api.get(SET).unwrap()["spec"], before, "no pod is replaced");
        // A server that names it itself needs it.
        test.api.remove(PULL_SECRET);
        test.reconcile::<Servers>(&private()).await;
        assert_eq!(test.condition(SERVER, "Accepted").1, "ConfigNotFound");
    }
}

#[tokio::test]
async fn a_server_that_is_kept_rejected_loses_a_pull_secret_that_nobody_names_any_more() {
    let (mut test, mut server) = (with_sources(), configured());
    let mut tenant = tenant();
    tenant.spec.images.pull_secrets = serde_json::from_value(json!([{"name": "registry"}])).unwrap();
    test.add_tenant(&tenant);
    test.api.insert(PULL_SECRET, pull_secret("b25l"));
    let mut other = pull_secret("b25l");
    other["metadata"]["name"] = json!("other");
    test.api.insert("/api/v1/namespaces/acme/secrets/other", other);
    server.spec.image_pull_secrets = serde_json::from_value(json!([{"name": "other"}])).unwrap();
    test.reconcile::<Servers>(&server).await;
    let secrets =
        |test: &TestContext| test.api.get(SET).unwrap()["spec"]["template"]["spec"]["imagePullSecrets"].clone();
    assert_eq!(secrets(&test), json!([{"name": "mcp-files.pull.other"}, {"name": "mcp-files.pull.registry"}]));
    test.api.remove(SECRET);
    tenant.spec.images.pull_secrets.clear();
    test.add_tenant(&tenant);
    test.reconcile::<Servers>(&server).await;
    assert_eq!(test.condition(SERVER, "Accepted").1, "ConfigNotFound");
    assert_eq!(secrets(&test), json!([{"name": "mcp-files.pull.other"}]));
}
