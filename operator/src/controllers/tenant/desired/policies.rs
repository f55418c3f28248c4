//! Who may talk to whom in the runtime namespace: nobody, but for the ways that a call takes, the control stream and
//! the scrapes of the monitoring namespace. No pod may ask a name server: all addresses come with the policy.
//!
//! The servers' own policies come with the servers.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::metadata;
use crate::controllers::manifests::network::{named, scrape, tcp};
use crate::controllers::manifests::settings::Settings;
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::{ApplyError, Rendered};
use crate::kubernetes::labels;

pub(super) fn render(tenant: &Tenant, settings: &Settings) -> Result<Vec<Rendered>, ApplyError> {
    let deny = policy(tenant, "default-deny", &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let mut clients = vec![json!({"namespaceSelector": named(&tenant.namespace)})];
    for client in &tenant.clients {
        clients.push(json!({"namespaceSelector": serde_json::to_value(&client.namespace_selector)?}));
    }
    let mut ingress = vec![json!({"from": clients, "ports": [tcp(8443)]})];
    ingress.extend(scrape(settings));
    let operator = json!({
        "namespaceSelector": named(&settings.operator_namespace),
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
            "egress": [{"to": [servers, operator], "ports": [tcp(8443)]}],
        }),
    );
    Ok(vec![deny, gateway])
}

fn policy(tenant: &Tenant, name: &str, spec: &Value) -> Rendered {
    Rendered::json::<NetworkPolicy>(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(tenant, "network", &tenant.runtime_namespace, name),
        "spec": spec,
    }))
}
