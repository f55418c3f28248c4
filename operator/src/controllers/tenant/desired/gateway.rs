//! The tenant's gateway: `mcp-pod gateway` behind one Service.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use mcp_fleet_control::snapshot::{CHUNK_SLOTS, secret_name};
use mcp_fleet_control::version::AUDIENCE;
use mcp_fleet_core::control_server::PEER_PORT;
use mcp_fleet_core::labels;
use serde_json::{Value, json};

use super::metadata;
use crate::controllers::manifests::placement::{Kind, configure};
use crate::controllers::manifests::pod::{container_security, pod_security, port, ports, probes, pull_with};
use crate::controllers::manifests::settings::Settings;
use crate::controllers::manifests::{PEER_PORT_NAME, tls_secret_name};
use crate::controllers::tenant::endpoint;
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::Rendered;
use crate::rollout::{OPTIONS, ShimOptions};

/// Name of the Deployment, the Service and the `ServiceAccount`.
pub(crate) const DEPLOYMENT: &str = "gateway";

/// Renders service account, Service and disruption budget.
pub(super) fn render(tenant: &Tenant) -> [Rendered; 3] {
    let meta = || metadata(tenant, "gateway", &tenant.runtime_namespace, DEPLOYMENT);
    let selector = labels::selector("gateway");
    let account = Rendered::json::<ServiceAccount>(json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta(),
        "automountServiceAccountToken": false,
    }));
    let service = Rendered::json::<Service>(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(),
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [{"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"}],
        },
    }));
    let budget = Rendered::json::<PodDisruptionBudget>(json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta(),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
    }));
    [account, service, budget]
}

/// Renders the Deployment.
pub(super) fn deployment(tenant: &Tenant, settings: &Settings) -> Rendered {
    let selector = labels::selector("gateway");
    let replicas = if settings.may_scale { tenant.gateway_replicas } else { 1 };
    let mut metadata = metadata(tenant, "gateway", &tenant.runtime_namespace, DEPLOYMENT);
    if settings.options > ShimOptions::FIRST {
        metadata["annotations"] = json!({OPTIONS: settings.options.0.to_string()});
    }
    let mut template = json!({
        "metadata": {"labels": labels::of_tenant("gateway", &tenant.id.name, &tenant.id.uid)},
        "spec": pod(tenant, settings),
    });
    configure(&mut template, &tenant.gateway_pod, &selector, Kind::Deployment);
    Rendered::json::<Deployment>(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "strategy": strategy(replicas),
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selector},
            "template": template,
        },
    }))
}

/// Returns how pods are replaced. There are never more than `replicas`, because the tenant's quota may have no room for one
/// more, and one that is not needed has no place among the homes of principals.
fn strategy(replicas: u32) -> Value {
    match replicas {
        0 | 1 => json!({"type": "Recreate"}),
        _ => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
    }
}

fn pod(tenant: &Tenant, settings: &Settings) -> Value {
    let mut container = json!({
        "name": "gateway",
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "args": [
            "gateway",
            format!("--operator-address={}", std::net::SocketAddr::new(settings.operator_address, 8443)),
            format!("--operator-name={}", settings.operator_name),
        ],
        // The gateway derives from the memory limit how much connections and requests may use.
        "resources": tenant.gateway_resources,
        "securityContext": container_security(),
    });
    let mut volumes = vec![
        json!({"name": "tls", "secret": {"secretName": tls_secret_name(DEPLOYMENT)}}),
        json!({"name": "token", "projected": {"sources": [token()]}}),
        json!({"name": "policy", "projected": {"sources": snapshots()}}),
    ];
    let mut ports = ports().to_vec();
    // Also without a public name and for a single pod, so that no gateway is restarted when that changes.
    if settings.has_newest_form {
        volumes.push(json!({"name": "public-tls", "secret": {"secretName": endpoint::SECRET, "optional": true}}));
        ports.push(port(PEER_PORT_NAME, PEER_PORT));
    }
    container["ports"] = Value::Array(ports);
    let mounts = volumes.iter().map(|volume| {
        let name = volume["name"].as_str().unwrap_or_default();
        json!({"name": name, "mountPath": format!("/var/run/mcp-fleet/{name}"), "readOnly": true})
    });
    container["volumeMounts"] = mounts.collect();
    for (name, probe) in probes() {
        container[name] = probe;
    }
    let mut pod = json!({
        "serviceAccountName": DEPLOYMENT,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(settings),
        "containers": [container],
        "volumes": volumes,
    });
    if settings.has_newest_form {
        pod["topologySpreadConstraints"] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(spread).into();
    }
    pull_with(&mut pod, settings.pull_secrets.iter());
    pod
}

/// Returns the wish that pods are spread over the nodes or zones with this label. It keeps no pod from starting.
fn spread(topology_key: &str) -> Value {
    json!({
        "topologyKey": topology_key,
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels::selector("gateway")},
        // Those of the former template are about to go.
        "matchLabelKeys": ["pod-template-hash"],
    })
}

/// Returns the source of the token with which the gateway authenticates to the operator.
fn token() -> Value {
    json!({"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}})
}

/// Returns the volume sources of the policy snapshot. They are optional: a gateway starts before its first policy is
/// published, and refuses every call until then.
fn snapshots() -> Vec<Value> {
    (0..CHUNK_SLOTS).map(secret_name).map(|name| json!({"secret": {"name": name, "optional": true}})).collect()
}
