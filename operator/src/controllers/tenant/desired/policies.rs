//! Network policies of the runtime namespace: everything is denied except calls from clients to the gateway and from the
//! gateway to servers, what gateways forward to each other, the control stream, and scrapes from the monitoring namespace. DNS is denied too: all addresses
//! come with the policy.
//!
//! Each server has a policy of its own, rendered by the server controller.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use mcp_fleet_core::control_server::PEER_PORT;
use mcp_fleet_core::labels;
use serde_json::{Value, json};

use super::metadata;
use crate::controllers::manifests::network::{DEFAULT_DENY, namespace_by_name, scrape, tcp};
use crate::controllers::manifests::settings::Settings;
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::Rendered;

pub(super) fn render(tenant: &Tenant, settings: &Settings) -> [Rendered; 2] {
    let deny = policy(tenant, DEFAULT_DENY, &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let mut clients = vec![json!({"namespaceSelector": namespace_by_name(&tenant.namespace)})];
    clients.extend(tenant.clients.iter().map(|client| json!({"namespaceSelector": client.namespace_selector})));
    let gateways = json!([{"podSelector": {"matchLabels": labels::selector("gateway")}}]);
    let peers = json!([tcp(PEER_PORT)]);
    let mut ingress = vec![json!({"from": clients, "ports": [tcp(8443)]}), json!({"from": gateways, "ports": peers})];
    ingress.extend(scrape(settings));
    let operator = json!({
        "namespaceSelector": namespace_by_name(&settings.operator_namespace),
        "podSelector": {"matchLabels": labels::selector("operator")},
    });
    let servers = json!({"podSelector": {"matchLabels": labels::selector("server")}});
    let gateway = policy(
        tenant,
        "gateway",
        &json!({
            "podSelector": {"matchLabels": labels::selector("gateway")},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [
                {"to": [servers, operator], "ports": [tcp(8443)]},
                {"to": gateways, "ports": peers},
            ],
        }),
    );
    [deny, gateway]
}

fn policy(tenant: &Tenant, name: &str, spec: &Value) -> Rendered {
    Rendered::json::<NetworkPolicy>(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(tenant, "network", &tenant.runtime_namespace, name),
        "spec": spec,
    }))
}
