//! Parts of network policies.

use serde_json::{Value, json};

use super::settings::Settings;

/// Name of the policy that denies everything in a runtime namespace.
pub(crate) const DEFAULT_DENY: &str = "default-deny";

/// Returns the rule that lets the monitoring namespace read metrics; none without such a namespace.
pub(crate) fn scrape(settings: &Settings) -> Option<Value> {
    let namespace = settings.monitoring_namespace.as_deref()?;
    Some(json!({"from": [{"namespaceSelector": namespace_by_name(namespace)}], "ports": [tcp(9090)]}))
}

/// Returns the selector of one namespace. Kubernetes itself sets the label and keeps it.
pub(crate) fn namespace_by_name(namespace: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}})
}

/// Returns a TCP port of a rule.
pub(crate) fn tcp(port: u16) -> Value {
    json!({"protocol": "TCP", "port": port})
}
