//! Which servers of a tenant fit in its quota, for tenants that stop the others. Pure.
//!
//! Kubernetes does not stop pods when a quota is lowered, and does not choose which to admit. Here the gateway comes first
//! and then the servers in the order of their creation: each that fits in what is left runs, so the newest are stopped.
//! The result depends on the declared objects only, so a stopped server does not start again because it was stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use mcp_fleet_crds::quantity::billionths;
use mcp_fleet_crds::server::Resources;
use mcp_fleet_crds::tenant::Enforcement;
use mcp_fleet_crds::{MCPServer, MCPTenant};

use super::program::resources;
use crate::controllers::manifests::resources::{DEFAULT_LIMITS, DEFAULT_REQUESTS};
use crate::kubernetes::cache::Cache;

/// Amounts of resources under their names in a `ResourceQuota`, in billionths.
type Amounts = BTreeMap<String, i128>;

/// Returns which resource the server with this UID does not fit in; none if it fits, or if the tenant stops no server.
pub(super) fn missing_resource(
    tenant: &MCPTenant,
    servers: impl FnOnce() -> Vec<Arc<MCPServer>>,
    uid: &str,
) -> Option<String> {
    if tenant.spec.enforcement == Enforcement::Keep {
        return None;
    }
    let mut left = limits(tenant);
    if left.is_empty() {
        return None;
    }
    // Of several gateways, as many come first as fit.
    let gateway = of_gateway(tenant);
    for _ in 0..tenant.spec.gateway.replicas {
        take(&mut left, &gateway);
    }
    let mut oldest_first = servers();
    oldest_first.retain(|server| server.metadata.deletion_timestamp.is_none());
    oldest_first
        .sort_by_key(|server| (server.metadata.creation_timestamp.clone().map(|time| time.0), server.name_any()));
    for server in oldest_first {
        let missing = take(&mut left, &of_server(&server));
        if server.metadata.uid.as_deref() == Some(uid) {
            return missing;
        }
    }
    None
}

/// Whether the tenant of a namespace stops servers that do not fit in its quota.
pub(super) fn stops_servers(cache: &Cache, namespace: &str) -> bool {
    let tenant = cache.tenant_of_namespace(namespace);
    tenant.is_some_and(|tenant| tenant.spec.enforcement == Enforcement::ScaleToZero && !limits(&tenant).is_empty())
}

/// Returns the amounts of the tenant's quota that stopping pods can free.
fn limits(tenant: &MCPTenant) -> Amounts {
    tenant.spec.hard.iter().filter_map(|(name, amount)| Some((canonical(name)?, billionths(&amount.0)?))).collect()
}

/// Takes amounts from what is left. Takes nothing and returns the resource if one is too large.
fn take(left: &mut Amounts, wanted: &Amounts) -> Option<String> {
    let of = |name: &String| wanted.get(name).copied().unwrap_or(0);
    let missing = left.iter().find(|(name, left)| of(name) > 0 && of(name) > **left);
    if let Some((name, _)) = missing {
        return Some(name.clone());
    }
    for (name, left) in left {
        *left -= of(name);
    }
    None
}

/// Returns the name that a quota for pods has in [`Amounts`]; none if stopping pods does not free the resource.
fn canonical(name: &str) -> Option<String> {
    let name = match name {
        "count/pods" => "pods",
        "cpu" => "requests.cpu",
        "memory" => "requests.memory",
        "ephemeral-storage" => "requests.ephemeral-storage",
        other => other,
    };
    let known = name == "pods"
        || DEFAULT_LIMITS
            .entries()
            .iter()
            .any(|(resource, _)| name == format!("requests.{resource}") || name == format!("limits.{resource}"));
    known.then(|| name.to_owned())
}

/// Returns what one gateway pod uses.
fn of_gateway(tenant: &MCPTenant) -> Amounts {
    let resources = &tenant.spec.gateway.resources;
    let memory = |bytes: mcp_fleet_policy::units::Bytes| Quantity(bytes.to_string());
    let pair = |cpu: &Quantity, bytes| [("cpu".to_owned(), cpu.clone()), ("memory".to_owned(), memory(bytes))].into();
    pods(
        1,
        &Resources {
            requests: pair(&resources.requests.cpu, resources.requests.memory),
            limits: pair(&resources.limits.cpu, resources.limits.memory),
        },
    )
}

fn of_server(server: &MCPServer) -> Amounts {
    let declared = server.spec.source.container().and_then(resources);
    pods(server.spec.replicas, &declared.unwrap_or_default())
}

/// Returns what a number of pods with one container use. Kubernetes takes the request of a container that has none from its
/// limit, and both from the defaults of the namespace if it has neither.
fn pods(replicas: u32, container: &Resources) -> Amounts {
    let amount = |quantity: &str| billionths(quantity).unwrap_or(i128::MAX / 1_000_000);
    let mut amounts = Amounts::from([("pods".to_owned(), amount("1"))]);
    for ((resource, default_limit), (_, default_request)) in
        DEFAULT_LIMITS.entries().into_iter().zip(DEFAULT_REQUESTS.entries())
    {
        let (limit, request) = (container.limits.get(resource), container.requests.get(resource));
        let limit_or_default = limit.map_or(default_limit, |limit| &limit.0);
        let request = request.or(limit).map_or(default_request, |request| &request.0);
        amounts.insert(format!("limits.{resource}"), amount(limit_or_default));
        amounts.insert(format!("requests.{resource}"), amount(request));
    }
    for amount in amounts.values_mut() {
        *amount = amount.saturating_mul(i128::from(replicas));
    }
    amounts
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::tenant::Enforcement::{Keep, ScaleToZero};
    use serde_json::json;

    use super::*;

    fn tenant(enforcement: Enforcement, hard: &serde_json::Value) -> MCPTenant {
        let mut tenant = crate::controllers::tenant::tests::tenant();
        tenant.spec.hard = serde_json::from_value(hard.clone()).unwrap();
        tenant.spec.enforcement = enforcement;
        tenant
    }

    /// A server that was created on that day of a month.
    fn server(day: u32, replicas: u32, resources: &serde_json::Value) -> Arc<MCPServer> {
        let mut server = crate::controllers::server::tests::server();
        let created = format!("2026-11-{day:02}T00:00:00Z");
        server.metadata.creation_timestamp = serde_json::from_value(json!(created)).unwrap();
        (server.metadata.name, server.metadata.uid) = (Some(format!("of-{day}")), Some(day.to_string()));
        server.spec.replicas = replicas;
        server.spec.source.stdio.as_mut().unwrap().resources = serde_json::from_value(resources.clone()).unwrap();
        Arc::new(server)
    }

    /// Returns which of the servers do not fit, and what each lacks.
    fn stopped(tenant: &MCPTenant, servers: &[Arc<MCPServer>]) -> Vec<(String, String)> {
        let missing = |server: &Arc<MCPServer>| {
            let uid = server.metadata.uid.clone().unwrap();
            Some((uid.clone(), missing_resource(tenant, || servers.to_vec(), &uid)?))
        };
        servers.iter().filter_map(missing).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(uid, resource)| ((*uid).to_owned(), (*resource).to_owned())).collect()
    }

    #[test]
    fn the_newest_servers_are_stopped_in_any_order_of_the_list() {
        let tenant = tenant(ScaleToZero, &json!({"pods": "3"}));
        let mut servers = vec![server(3, 1, &json!(null)), server(1, 1, &json!(null)), server(2, 1, &json!(null))];
        assert_eq!(stopped(&tenant, &servers), pairs(&[("3", "pods")]));
        servers.rotate_left(1);
        assert_eq!(stopped(&tenant, &servers), pairs(&[("3", "pods")]));
    }

    #[test]
    fn nothing_is_stopped_unless_the_tenant_asks_for_it() {
        let servers = [server(1, 9, &json!(null))];
        assert_eq!(stopped(&tenant(Keep, &json!({"pods": "1"})), &servers), []);
        assert_eq!(stopped(&tenant(ScaleToZero, &json!({"count/mcpservers.mcp-fleet.dev": "0"})), &servers), []);
        assert_eq!(stopped(&tenant(ScaleToZero, &json!({})), &servers), []);
    }

    #[test]
    fn a_server_that_does_not_fit_leaves_its_room_to_a_newer_one() {
        let tenant = tenant(ScaleToZero, &json!({"limits.memory": "1Gi"}));
        let of = |memory: &str| json!({"limits": {"memory": memory}});
        let servers = [server(1, 1, &of("512Mi")), server(2, 1, &of("512Mi")), server(3, 1, &of("256Mi"))];
        assert_eq!(stopped(&tenant, &servers), pairs(&[("2", "limits.memory")]));
    }

    #[test]
    fn what_a_container_does_not_declare_comes_from_its_limit_or_the_defaults() {
        let servers = [server(1, 1, &json!(null)), server(2, 1, &json!({"limits": {"cpu": "2"}}))];
        // 50m of the gateway, 20m by default, 2 from the limit.
        assert_eq!(stopped(&tenant(ScaleToZero, &json!({"cpu": "2070m"})), &servers), []);
        assert_eq!(stopped(&tenant(ScaleToZero, &json!({"cpu": "2069m"})), &servers), pairs(&[("2", "requests.cpu")]));
        assert_eq!(stopped(&tenant(ScaleToZero, &json!({"limits.cpu": "4"})), &servers), []);
        assert_eq!(
            stopped(&tenant(ScaleToZero, &json!({"limits.cpu": "3999m"})), &servers),
            pairs(&[("2", "limits.cpu")])
        );
    }

    #[test]
    fn all_gateways_that_fit_come_before_the_servers() {
        let mut tenant = tenant(ScaleToZero, &json!({"pods": "4"}));
        let servers = [server(1, 1, &json!(null)), server(2, 1, &json!(null))];
        let mut with = |replicas| {
            tenant.spec.gateway.replicas = replicas;
            stopped(&tenant, &servers)
        };
        assert_eq!(with(2), []);
        assert_eq!(with(3), pairs(&[("2", "pods")]));
        assert_eq!(with(9), pairs(&[("1", "pods"), ("2", "pods")]));
    }

    #[test]
    fn a_server_without_pods_uses_nothing() {
        let tenant = tenant(ScaleToZero, &json!({"pods": "1"}));
        assert_eq!(
            stopped(&tenant, &[server(1, 0, &json!(null)), server(2, 1, &json!(null))]),
            pairs(&[("2", "pods")])
        );
    }
}
