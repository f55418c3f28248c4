//! The operator that all tests share, and helpers.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::Parser as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_crds::{MCPServer, MCPTenant};
use mcp_fleet_operator::config::Config;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Namespace of the operator under test.
pub(crate) const OPERATOR_NAMESPACE: &str = "mcp-fleet-system";

/// How long to wait for an effect of a watch.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a new client. Each test needs its own, because connections belong to the runtime of the test.
pub(crate) async fn client() -> Client {
    client_of("MCP_FLEET_TEST_KUBECONFIG").await
}

/// Returns a new client of the cluster whose kubeconfig this environment variable names.
pub(crate) async fn client_of(variable: &str) -> Client {
    mcp_fleet_operator::kubernetes::client::from_config(kube_config(variable).await).unwrap()
}

/// Returns a new client with the rights of the operator: those that its chart grants.
pub(crate) async fn operator_client() -> Client {
    client_as(&format!("system:serviceaccount:{OPERATOR_NAMESPACE}:mcp-fleet-operator")).await
}

/// Returns a new client of a user.
pub(crate) async fn client_as(user: &str) -> Client {
    let mut config = kube_config("MCP_FLEET_TEST_KUBECONFIG").await;
    config.auth_info.impersonate = Some(user.to_owned());
    mcp_fleet_operator::kubernetes::client::from_config(config).unwrap()
}

/// Returns a client that decodes everything that the API server sends.
pub(crate) async fn unfiltered_client() -> Client {
    Client::try_from(kube_config("MCP_FLEET_TEST_KUBECONFIG").await).unwrap()
}

async fn kube_config(variable: &str) -> kube::Config {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let path = std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} must name a kubeconfig; `cargo xtask test api` sets it"));
    let file = Kubeconfig::read_from(path).unwrap();
    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap()
}

/// Returns the flags of the operator under test.
pub(crate) fn flags(pod: &str) -> Config {
    Config::parse_from([
        "operator",
        "--mcp-pod-image=mcp-fleet.local/mcp-pod:dev",
        "--service-address=10.96.0.77",
        "--monitoring-namespace=monitoring",
        "--listen=127.0.0.1:0",
        "--metrics-listen=127.0.0.1:0",
        // On a busy machine, the operator may not renew its Lease as soon as it should, and would step down.
        "--lease-seconds=60",
        &format!("--pod-name={pod}"),
    ])
}

/// Returns a client of a cluster in which the CRDs are installed and the operator runs. One operator runs for all tests.
pub(crate) async fn with_operator() -> Client {
    static RUNNING: OnceLock<()> = OnceLock::new();
    static PREPARED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let client = client().await;
    PREPARED
        .get_or_init(|| async {
            prepare(&client).await;
        })
        .await;
    RUNNING.get_or_init(|| {
        std::thread::spawn(|| {
            mcp_fleet_operator::telemetry::init();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::spawn(count_quotas(self::client().await));
                let client = operator_client().await;
                let mut flags = flags("operator-under-test");
                flags.listen.set_port(control_port());
                let operator = mcp_fleet_operator::run::run(flags, client, CancellationToken::new());
                Box::pin(operator).await.unwrap();
            });
        });
    });
    client
}

/// Returns the port on which that operator serves control streams, on the loopback address.
pub(crate) fn control_port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(free_port)
}

/// Returns a port of the loopback address that is free now. Nothing else in this program listens on a fixed port.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Does what the quota controller of Kubernetes does for a new quota on our kinds. Until then, the API server refuses
/// every object that the quota counts.
async fn count_quotas(client: Client) {
    let quotas = watcher(Api::<ResourceQuota>::all(client.clone()), watcher::Config::default()).applied_objects();
    let mut quotas = quotas.boxed();
    while let Ok(Some(quota)) = quotas.try_next().await {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let counted = quota.status.as_ref().and_then(|status| status.hard.clone()).unwrap_or_default();
        if hard == counted || !hard.contains_key("count/mcpservers.mcp-fleet.dev") {
            continue;
        }
        let used: serde_json::Map<_, _> = hard.keys().map(|name| (name.clone(), json!("0"))).collect();
        let api: Api<ResourceQuota> = Api::namespaced(client.clone(), &quota.namespace().unwrap());
        let patch = Patch::Merge(json!({"status": {"hard": hard, "used": used}}));
        // The quota may be gone by now.
        let _ = api.patch_status(&quota.name_any(), &PatchParams::default(), &patch).await;
    }
}

/// Waits until a tenant's own namespace exists and takes objects.
pub(crate) async fn wait_until_open(client: &Client, namespace: &str) {
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("{namespace} takes objects"), || async {
        quotas.get_opt("mcp-fleet").await.unwrap()?.status?.used
    })
    .await;
}

/// Installs the CRDs, the admission policies and the operator's rights, and creates the operator's namespace.
pub(crate) async fn prepare(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("test").force();
    for definition in mcp_fleet_crds::all() {
        definitions.patch(&definition.name_any(), &params, &Patch::Apply(&definition)).await.unwrap();
    }
    for definition in mcp_fleet_crds::all() {
        let name = definition.name_any();
        eventually(&format!("{name} is established"), || async {
            let found = definitions.get(&name).await.ok()?;
            let conditions = found.status?.conditions?;
            conditions.iter().any(|it| it.type_ == "Established" && it.status == "True").then_some(())
        })
        .await;
    }
    namespace(client, OPERATOR_NAMESPACE, &[]).await;
    for (_, admission) in mcp_fleet_crds::admission::with_crds() {
        install(client, &serde_json::to_value(&admission.policy).unwrap()).await;
        install(client, &serde_json::to_value(&admission.binding).unwrap()).await;
    }
    let path = std::env::var("MCP_FLEET_TEST_CHART")
        .expect("MCP_FLEET_TEST_CHART must name the rendered chart; `cargo xtask test api` sets it");
    let chart: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for object in &chart {
        install(client, object).await;
    }
    until_permitted().await;
}

async fn install(client: &Client, object: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let api = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => untyped(client, namespace, &version, &kind),
        None => Api::all_with(client.clone(), &resource(&version, &kind)),
    };
    let params = PatchParams::apply("test").force();
    api.patch(&text(&object["metadata"]["name"]), &params, &Patch::Apply(object)).await.unwrap();
}

/// Waits until the API server knows the operator's rights.
async fn until_permitted() {
    let operator = operator_client().await;
    let tenants = Api::<MCPTenant>::all(operator.clone());
    let ledgers = untyped(&operator, OPERATOR_NAMESPACE, "mcp-fleet.dev/v1alpha1", "MCPLedger");
    eventually("the operator has its rights", || async {
        let params = kube::api::ListParams::default();
        (tenants.list(&params).await.is_ok() && ledgers.list(&params).await.is_ok()).then_some(())
    })
    .await;
}

/// Creates a namespace if it does not exist.
pub(crate) async fn namespace(client: &Client, name: &str, labels: &[(&str, &str)]) {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let api: Api<Namespace> = Api::all(client.clone());
    match api.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{error}"),
    }
}

/// Returns a name that no other test and no earlier run uses.
pub(crate) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let seconds = jiff::Timestamp::now().as_second() % 1_000_000;
    format!("{prefix}-{seconds}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a tenant with a namespace of the same name. `spec` is merged into its spec.
pub(crate) async fn tenant(client: &Client, name: &str, spec: Value) -> MCPTenant {
    let mut body = json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant", "metadata": {"name": name},
        "spec": {
            "namespace": {"name": name},
            "images": {"allowed": ["registry.example.com/acme/*"], "referencePolicy": "Any"},
        },
    });
    merge(&mut body["spec"], spec);
    create(&Api::<MCPTenant>::all(client.clone()), body).await
}

/// Creates a server with one tool. `spec` is merged into its spec.
pub(crate) async fn server(client: &Client, namespace: &str, name: &str, spec: Value) -> MCPServer {
    let mut body = json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "source": {"type": "Stdio", "stdio": {
                "image": "registry.example.com/acme/files:1", "command": ["files", "/workspace"],
            }},
            "tools": [{"name": "read", "class": "Read"}],
        },
    });
    merge(&mut body["spec"], spec);
    create(&Api::<MCPServer>::namespaced(client.clone(), namespace), body).await
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Creates an object from JSON.
pub(crate) async fn create<K>(api: &Api<K>, body: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap()
}

/// Waits until `check` returns a value. Panics with `what` if that takes too long.
pub(crate) async fn eventually<T, F, Fut>(what: &str, check: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(started.elapsed() < WAIT_TIMEOUT, "not within {WAIT_TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until an object exists.
pub(crate) async fn wait_for<K>(api: &Api<K>, name: &str) -> K
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    eventually(name, || async { api.get_opt(name).await.unwrap() }).await
}

/// Waits until an object is deleted or being deleted.
pub(crate) async fn wait_until_gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    eventually(&format!("{name} is deleted"), || async {
        let found = api.get_opt(name).await.unwrap();
        found.is_none_or(|found| found.meta().deletion_timestamp.is_some()).then_some(())
    })
    .await;
}

/// Asks until two answers in a row are the same, a few seconds apart, and returns them.
pub(crate) async fn settled<T: PartialEq + Debug, Fut: Future<Output = T>>(ask: impl Fn() -> Fut) -> T {
    let started = Instant::now();
    let mut before = ask().await;
    loop {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let now = ask().await;
        if now == before {
            return now;
        }
        assert!(started.elapsed() < WAIT_TIMEOUT, "not within {WAIT_TIMEOUT:?}: the same as before, {now:?}");
        before = now;
    }
}

/// Waits until a condition has a reason. Returns its message.
pub(crate) async fn wait_for_reason<K>(api: &Api<K>, name: &str, kind: &str, reason: &str) -> String
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    eventually(&format!("{name}: {kind} is {reason}"), || async {
        let found = serde_json::to_value(api.get_opt(name).await.unwrap()?).unwrap();
        let conditions: Vec<Condition> = serde_json::from_value(found["status"]["conditions"].clone()).ok()?;
        conditions.into_iter().find(|it| it.type_ == kind && it.reason == reason).map(|it| it.message)
    })
    .await
}

/// Returns the API of a kind by its name.
pub(crate) fn untyped(client: &Client, namespace: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(version, kind))
}

fn resource(version: &str, kind: &str) -> kube::api::ApiResource {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    kube::api::ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk(group, version, kind))
}
