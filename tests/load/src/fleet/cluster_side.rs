//! Does what a kubelet and the controllers of Kubernetes would do for the operator's objects: workloads become available
//! at once, the Services of servers get EndpointSlices, and quotas are counted. Nothing runs.

use futures::StreamExt as _;
use kube::Client;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::api::Write;
use super::tracker::{Metadata, watch};

/// Statuses that are written at a time.
const CONCURRENCY: usize = 8;
/// Selector of what the operator made.
const OURS: &str = "labelSelector=app.kubernetes.io%2Fmanaged-by%3Dmcp-fleet";

#[derive(Clone, Debug, Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// Starts to write statuses. Returns the namespaces in which a gateway has to start, as they appear.
pub(crate) fn start(client: &Client, tasks: &mut JoinSet<()>) -> mpsc::UnboundedReceiver<String> {
    let (writes, queue) = mpsc::unbounded_channel::<Write>();
    let (gateways, namespaces) = mpsc::unbounded_channel();
    for (plural, group) in
        [("deployments", "/apis/apps/v1"), ("statefulsets", "/apis/apps/v1"), ("resourcequotas", "/api/v1")]
    {
        let (writes, gateways) = (writes.clone(), gateways.clone());
        let handle = move |event| {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else { return None };
            let Object { metadata, spec, status } = object;
            let Metadata { name, namespace, generation, resource_version, .. } = metadata;
            if plural == "deployments" && name == "gateway" && status["observedGeneration"].is_null() {
                // Fails when the benchmark ends.
                let _ = gateways.send(namespace.clone());
            }
            if let Some(status) = next_status(plural, &spec, &status, generation) {
                let path = format!("{group}/namespaces/{namespace}/{plural}/{name}/status");
                let _ = writes.send(Write::patch(path, &json!({"status": status})));
            }
            Some(resource_version)
        };
        tasks.spawn(watch::<Object>(client.clone(), format!("{group}/{plural}?{OURS}"), handle));
    }
    let endpoints = move |event: WatchEvent<Object>| {
        let (WatchEvent::Added(service) | WatchEvent::Modified(service)) = event else { return None };
        if service.spec["clusterIP"] == "None" {
            // Fails when the benchmark ends.
            let _ = writes.send(endpoint_slice(&service));
        }
        Some(service.metadata.resource_version)
    };
    tasks.spawn(watch::<Object>(client.clone(), format!("/api/v1/services?{OURS}"), endpoints));
    let client = client.clone();
    tasks.spawn(async move {
        let send = async |write: Write| {
            if let Err(error) = write.send(&client).await {
                eprintln!("failed to write a status: {error}");
            }
        };
        UnboundedReceiverStream::new(queue).for_each_concurrent(CONCURRENCY, send).await;
    });
    namespaces
}

/// Returns the EndpointSlice of a Service, with one pod that is ready.
fn endpoint_slice(service: &Object) -> Write {
    let Metadata { name, namespace, labels, .. } = &service.metadata;
    let collection = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    Write::create(
        &collection,
        &json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "addressType": "IPv4", "ports": service.spec["ports"],
            "endpoints": [{"addresses": ["192.0.2.7"], "conditions": {"ready": true}}],
        }),
    )
}

/// Returns the status that an object should have, if it has another one.
fn next_status(plural: &str, spec: &Value, status: &Value, generation: i64) -> Option<Value> {
    if plural == "resourcequotas" {
        let hard = spec["hard"].as_object()?;
        let used: serde_json::Map<_, _> = hard.keys().map(|name| (name.clone(), json!("0"))).collect();
        return (status["hard"] != spec["hard"]).then(|| json!({"hard": hard, "used": used}));
    }
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    (status["observedGeneration"].as_i64() != Some(generation)).then(|| {
        json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas})
    })
}
