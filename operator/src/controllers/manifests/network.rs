//! Parts of network policies.

use serde_json::{Value, json};

use super::settings::Settings;

/// Lets the monitoring namespace, where there is one, read metrics.
pub(crate) fn scrape(settings: &Settings) -> Option<Value> {
    let namespace = settings.monitoring_namespace.as_deref()?;
    Some(json!({"from": [{"namespaceSelector": named(namespace)}], "ports": [tcp(9090)]}))
}

/// Selects one namespace by its name.
pub(crate) fn named(namespace: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}})
}

/// A TCP port of a rule.
pub(crate) fn tcp(port: u16) -> Value {
    json!({"protocol": "TCP", "port": port})
}
