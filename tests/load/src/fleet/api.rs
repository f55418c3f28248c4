//! Writes to the API server, as many at a time as there are connections.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use mcp_fleet_crds::admission::Admission;
use serde_json::{Value, json};

/// Requests that are sent at a time, by the load and by the bare writes.
pub(crate) const CONNECTIONS: usize = 32;

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    method: Method,
    path: String,
    body: Vec<u8>,
}

/// Returns a client of the API server.
pub(crate) async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    // The dependencies contain two TLS providers, so the one to use has to be set. It can be set only once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

impl Write {
    /// Creates an object in a collection, for example `/api/v1/namespaces`.
    pub(crate) fn create(collection: &str, object: &Value) -> Self {
        Self { method: Method::POST, path: collection.to_owned(), body: object.to_string().into_bytes() }
    }

    /// Changes parts of an object by a merge patch.
    pub(crate) fn patch(path: String, changes: &Value) -> Self {
        Self { method: Method::PATCH, path, body: changes.to_string().into_bytes() }
    }

    /// Sends the write once. Returns the answer.
    pub(crate) async fn send(&self, client: &Client) -> kube::Result<String> {
        let content_type =
            if self.method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request =
            Request::builder().method(self.method.clone()).uri(&self.path).header("content-type", content_type);
        client.request_text(request.body(self.body.clone()).map_err(kube::Error::HttpError)?).await
    }

    /// Sends the write until the API server accepts it. A quota that is not counted yet refuses objects for a moment.
    async fn send_until_accepted(&self, client: &Client) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            match self.send(client).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 && self.method == Method::POST => return Ok(()),
                Err(error) if started.elapsed() > Duration::from_secs(60) => {
                    return Err(error).with_context(|| format!("failed to write {}", self.path));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Sends writes, [`CONNECTIONS`] at a time. Returns how long that took.
pub(crate) async fn send_all(client: &Client, writes: &[Write]) -> anyhow::Result<Duration> {
    let started = Instant::now();
    futures::stream::iter(writes.iter().map(|write| write.send_until_accepted(client)))
        .buffer_unordered(CONNECTIONS)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(started.elapsed())
}

/// Reads an object or a list.
pub(crate) async fn get(client: &Client, path: &str) -> anyhow::Result<Value> {
    let request = Request::get(path).body(Vec::new())?;
    client.request(request).await.with_context(|| format!("failed to read {path}"))
}

/// Returns the CPU time that the API server has used so far.
pub(crate) async fn server_cpu(client: &Client) -> anyhow::Result<Duration> {
    let text = client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
    let line = text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    Ok(Duration::from_secs_f64(line.context("the API server does not report its CPU time")?.trim().parse()?))
}

/// Installs the CRDs with their admission policies, the operator's namespace, and what of its chart concerns the API server:
/// rights, admission policies and priorities.
pub(crate) async fn prepare(client: &Client, namespace: &str, chart: &Path) -> anyhow::Result<()> {
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for definition in mcp_fleet_crds::all() {
        Write::create(definitions, &serde_json::to_value(&definition)?).send_until_accepted(client).await?;
    }
    for definition in mcp_fleet_crds::all() {
        let path = format!("{definitions}/{}", definition.metadata.name.unwrap_or_default());
        loop {
            let conditions = get(client, &path).await?["status"]["conditions"].clone();
            let is_established = |it: &Value| it["type"] == "Established" && it["status"] == "True";
            if conditions.as_array().is_some_and(|all| all.iter().any(is_established)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    Write::create("/api/v1/namespaces", &namespace).send_until_accepted(client).await?;
    let mut objects = Vec::new();
    for (_, Admission { policy, binding }) in mcp_fleet_crds::admission::with_crds() {
        objects.extend([serde_json::to_value(&policy)?, serde_json::to_value(&binding)?]);
    }
    let chart: Vec<Value> = serde_json::from_slice(&std::fs::read(chart)?).context("failed to read the chart")?;
    objects.extend(chart);
    for object in &objects {
        Write::create(&collection_of(object)?, object).send_until_accepted(client).await?;
    }
    Ok(())
}

/// Returns the path of the collection that an object belongs to.
fn collection_of(object: &Value) -> anyhow::Result<String> {
    let version = object["apiVersion"].as_str().context("an object has no apiVersion")?;
    let kind = object["kind"].as_str().context("an object has no kind")?.to_lowercase();
    let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/apis/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/apis/{version}/{plural}"),
    })
}
