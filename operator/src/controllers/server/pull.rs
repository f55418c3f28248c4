//! The Secrets with which the image of a server is pulled. Pods refer to copies of them. Pure.

use mcp_fleet_core::server_config::{Found, References, Source};
use mcp_fleet_crds::{MCPServer, MCPTenant};
use serde_json::Value;

/// Adds to what a program refers to the pull secrets of its server and of its tenant.
pub(super) fn with_secrets(references: References, object: &MCPServer, tenant: &MCPTenant) -> References {
    references.with_pull_secrets(&object.spec.image_pull_secrets, &tenant.spec.images.pull_secrets)
}

/// Returns the names of the copies.
pub(super) fn copies(server: &str, found: &Found) -> Vec<String> {
    let secrets = found.0.keys().filter(|source| matches!(source, Source::PullSecret(_)));
    secrets.map(|source| source.copy_name(server)).collect()
}

/// Reads the names of the copies back from the template of a workload.
pub(super) fn read(server: &str, template: &Value) -> Vec<String> {
    let prefix = Source::PullSecret(String::new()).copy_name(server);
    let names = template["spec"]["imagePullSecrets"].as_array().into_iter().flatten();
    let names = names.filter_map(|secret| secret["name"].as_str());
    names.filter(|name| name.starts_with(&prefix)).map(str::to_owned).collect()
}
