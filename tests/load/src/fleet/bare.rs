//! The divisor: the time that the API server takes to create copies of the same objects, those of the operator included,
//! without anybody who watches.

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use serde_json::Value;

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

/// What the bare writes took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) objects: usize,
    pub(crate) took: Duration,
    pub(crate) server_cpu: Duration,
}

/// Creates copies of everything that belongs to the tenants from `first` on. Nothing else may run.
pub(crate) async fn measure(client: &Client, first: usize) -> anyhow::Result<Bare> {
    let first = tenant_name(first);
    let mut writes = Vec::new();
    for (group, plural) in COLLECTIONS {
        let mut token = String::new();
        loop {
            let page = get(client, &format!("{group}/{plural}?limit=500&continue={token}")).await?;
            let kind =
                page["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).context("a list has no kind")?;
            for item in page["items"].as_array().into_iter().flatten() {
                writes.extend(copy(item, group, plural, kind, page["apiVersion"].as_str().unwrap_or_default(), &first));
            }
            page["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
    }
    let before = server_cpu(client).await?;
    let took = send_all(client, &writes).await?;
    Ok(Bare { objects: writes.len(), took, server_cpu: server_cpu(client).await?.saturating_sub(before) })
}

/// Returns the write that creates a copy of an object of the fleet under another tenant's name; none for an object that
/// does not belong to a tenant from `first` on.
fn copy(object: &Value, group: &str, plural: &str, kind: &str, version: &str, first: &str) -> Option<Write> {
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
    Some(Write::create(&collection, &copy))
}
