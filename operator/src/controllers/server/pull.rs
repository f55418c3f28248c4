//! The Secrets with which the image of a server is pulled. Pods refer to copies of them. Pure.

use mcp_fleet_core::server_config::{References, Source};
use mcp_fleet_crds::{MCPServer, MCPTenant};
use serde_json::Value;

/// Adds to what a program refers to the pull secrets of its server and of its tenant.
pub(super) fn with_secrets(references: References, object: &MCPServer, tenant: &MCPTenant) -> References {
    references.with_pull_secrets(&object.spec.image_pull_secrets, &tenant.spec.images.pull_secrets)
}

/// Returns the names of the copies. Pods refer to all of them, also to one that does not exist at the moment, so that none is replaced
/// because a Secret comes or goes.
pub(super) fn copies(object: &MCPServer, tenant: &MCPTenant) -> Vec<String> {
    let server = object.metadata.name.as_deref().unwrap_or_default();
    let references = with_secrets(References::default(), object, tenant);
    references.0.keys().map(|source: &Source| source.copy_name(server)).collect()
}

/// Reads the names of the copies back from the template of a workload. What neither the server nor its tenant names any more is not
/// among them.
pub(super) fn read(object: &MCPServer, tenant: &MCPTenant, template: &Value) -> Vec<String> {
    let wanted = copies(object, tenant);
    let names = template["spec"]["imagePullSecrets"].as_array().into_iter().flatten();
    let names = names.filter_map(|secret| secret["name"].as_str().map(str::to_owned));
    names.filter(|name| wanted.contains(name)).collect()
}
