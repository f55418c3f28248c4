//! The divisors: the time that the API server takes to create copies of the same objects, those of the operator included,
//! without anybody who watches; and the time for the statuses and Events that convergence consists of besides.

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use serde_json::{Value, json};

use super::api::{Write, get, send_all, server_cpu};
use super::objects::tenant_name;

/// Collections that the fleet has objects in: API, plural, kind, and whether there is one in each namespace.
const COLLECTIONS: [(&str, &str); 16] = [
    ("/api/v1", "namespaces"),
    ("/apis/mcp-fleet.dev/v1alpha1", "mcptenants"),
    ("/apis/mcp-fleet.dev/v1alpha1", "mcpservers"),
    ("/apis/mcp-fleet.dev/v1alpha1", "mcpscopes"),
    ("/apis/mcp-fleet.dev/v1alpha1", "mcpprincipals"),
    ("/api/v1", "secrets"),
    ("/api/v1", "services"),
    ("/api/v1", "serviceaccounts"),
    ("/api/v1", "limitranges"),
    ("/api/v1", "resourcequotas"),
    ("/apis/apps/v1", "deployments"),
    ("/apis/apps/v1", "statefulsets"),
    ("/apis/networking.k8s.io/v1", "networkpolicies"),
    ("/apis/policy/v1", "poddisruptionbudgets"),
    ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ("/apis/rbac.authorization.k8s.io/v1", "roles"),
];

/// Collections of what is written while a fleet converges, besides its objects.
const ACCOMPANYING: [(&str, &str); 2] =
    [("/apis/discovery.k8s.io/v1", "endpointslices"), ("/apis/events.k8s.io/v1", "events")];

/// Collections whose objects have a status that the operator, or the benchmark in place of Kubernetes, writes.
const WITH_STATUS: [&str; 7] =
    ["mcptenants", "mcpservers", "mcpscopes", "mcpprincipals", "resourcequotas", "deployments", "statefulsets"];

/// What a set of bare writes took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) writes: usize,
    pub(crate) took: Duration,
    pub(crate) server_cpu: Duration,
}

/// Creates copies of everything that belongs to the tenants from `first` on. Nothing else may run. Returns what the
/// objects took, and what the rest took that each convergence needs: each status once, EndpointSlices and Events.
pub(crate) async fn measure(client: &Client, first: usize) -> anyhow::Result<(Bare, Bare)> {
    let first = tenant_name(first);
    let (mut objects, mut rest) = (Vec::new(), Vec::new());
    for (group, plural) in COLLECTIONS.into_iter().chain(ACCOMPANYING) {
        let mut token = String::new();
        loop {
            let page = get(client, &format!("{group}/{plural}?limit=500&continue={token}")).await?;
            let kind =
                page["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).context("a list has no kind")?;
            for item in page["items"].as_array().into_iter().flatten() {
                let version = page["apiVersion"].as_str().unwrap_or_default();
                let Some((collection, copy)) = copy(item, group, plural, kind, version, &first) else { continue };
                let create = Write::create(&collection, &copy);
                if ACCOMPANYING.contains(&(group, plural)) { &mut rest } else { &mut objects }.push(create);
                if WITH_STATUS.contains(&plural) && item["status"].is_object() {
                    let name = copy["metadata"]["name"].as_str().unwrap_or_default();
                    rest.push(Write::patch(format!("{collection}/{name}/status"), &json!({"status": item["status"]})));
                }
            }
            page["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
    }
    Ok((send(client, &objects).await?, send(client, &rest).await?))
}

async fn send(client: &Client, writes: &[Write]) -> anyhow::Result<Bare> {
    let before = server_cpu(client).await?;
    let took = send_all(client, writes).await?;
    Ok(Bare { writes: writes.len(), took, server_cpu: server_cpu(client).await?.saturating_sub(before) })
}

/// Returns a copy of an object of the fleet under another tenant's name, and the collection it belongs to; none for an
/// object that does not belong to a tenant from `first` on.
fn copy(object: &Value, group: &str, plural: &str, kind: &str, version: &str, first: &str) -> Option<(String, Value)> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str();
    // Keys of tenants are in the operator's namespace.
    let labels = &object["metadata"]["labels"];
    let tenant = namespace.filter(|it| it.starts_with("bench-t")).unwrap_or(name);
    let tenant = if tenant.starts_with("bench-t") { tenant } else { labels["mcp-fleet.dev/tenant"].as_str()? };
    if tenant < first {
        return None;
    }
    let mut copy = object.clone();
    let metadata = copy["metadata"].as_object_mut()?;
    metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
    if plural == "secrets" && namespace.is_some_and(|namespace| !namespace.starts_with("bench-t")) {
        metadata.insert("name".into(), format!("copy-of-{name}").into());
    }
    (copy["kind"], copy["apiVersion"]) = (kind.into(), version.into());
    if let Some(fields) = copy.as_object_mut() {
        fields.remove("status");
    }
    // The copy gets an address of its own, unless the Service is headless.
    let has_address = plural == "services" && copy["spec"]["clusterIP"] != "None";
    if let Some(spec) = copy["spec"].as_object_mut().filter(|_| has_address) {
        spec.retain(|key, _| !["clusterIP", "clusterIPs"].contains(&key.as_str()));
    }
    let copy: Value = serde_json::from_str(&copy.to_string().replace("bench-t", "bench-b")).ok()?;
    let collection = match copy["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
        None => format!("{group}/{plural}"),
    };
    Some((collection, copy))
}
