//! One operator for all tests, and what they have in common.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::Parser as _;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_crds::{MCPServer, MCPTenant};
use mcp_fleet_operator::config::Config;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Where the operator under test keeps its Secrets.
pub(crate) const OPERATOR_NAMESPACE: &str = "mcp-fleet-system";

/// How long anything may take that is driven by watches.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of its own for each test: its connections belong to the test's runtime.
pub(crate) async fn client() -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let path = std::env::var("MCP_FLEET_TEST_KUBECONFIG")
        .expect("MCP_FLEET_TEST_KUBECONFIG must name a kubeconfig; `cargo xtask test api` sets it");
    let file = Kubeconfig::read_from(path).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    mcp_fleet_operator::kubernetes::client(config).unwrap()
}

/// The flags of an operator under test.
pub(crate) fn flags(pod: &str) -> Config {
    Config::parse_from([
        "operator",
        "--mcp-pod-image=mcp-fleet.local/mcp-pod:dev",
        "--service-address=10.96.0.77",
        "--monitoring-namespace=monitoring",
        "--listen=127.0.0.1:0",
        "--metrics-listen=127.0.0.1:0",
        &format!("--pod-name={pod}"),
    ])
}

/// A client, with the resources defined and one operator running for the whole of the test program.
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
                let client = self::client().await;
                let mut flags = flags("operator-under-test");
                flags.listen.set_port(control_port());
                let operator = mcp_fleet_operator::run::run(flags, client, CancellationToken::new());
                Box::pin(operator).await.unwrap();
            });
        });
    });
    client
}

/// Where the control stream of that operator is served, on the loopback address.
pub(crate) fn control_port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(free_port)
}

/// A port of the loopback address that was free a moment ago. Nothing else here listens on ports that it did not ask for.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Defines the resources and makes the operator's namespace.
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
}

/// Makes a namespace if it is not there.
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

/// A name that no other test and no earlier run has used.
pub(crate) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let seconds = jiff::Timestamp::now().as_second() % 1_000_000;
    format!("{prefix}-{seconds}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A tenant with a namespace of its own name; `spec` is added to it.
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

/// A server with one tool; `spec` is added to it.
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

/// Creates an object that is written as JSON.
pub(crate) async fn create<K>(api: &Api<K>, body: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap()
}

/// Waits until `look` sees something; names what it waited for if it never does.
pub(crate) async fn eventually<T, F, Fut>(what: &str, look: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "not seen within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until an object is there.
pub(crate) async fn there<K>(api: &Api<K>, name: &str) -> K
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    eventually(name, || async { api.get_opt(name).await.unwrap() }).await
}

/// Waits until an object is gone.
pub(crate) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    eventually(&format!("{name} is gone"), || async {
        let found = api.get_opt(name).await.unwrap();
        found.is_none_or(|found| found.meta().deletion_timestamp.is_some()).then_some(())
    })
    .await;
}

/// Waits until a condition has this reason; answers its message.
pub(crate) async fn reason<K>(api: &Api<K>, name: &str, kind: &str, reason: &str) -> String
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

/// The API of a kind that has no type here.
pub(crate) fn untyped(client: &Client, namespace: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = kube::api::ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}
