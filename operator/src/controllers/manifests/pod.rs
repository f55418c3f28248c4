//! Parts of pods: the restricted security context, probes and ports. Pure.

use serde_json::{Value, json};

use crate::controllers::manifests::settings::Settings;

/// User and group of our image, and the fsGroup of its volumes.
const ID: i64 = 65532;

/// Returns the security context of a pod. Without fixed ids, the platform or the image has to set a numeric user.
pub(crate) fn pod_security(settings: &Settings) -> Value {
    let mut context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    if settings.set_security_ids {
        context["fsGroup"] = json!(ID);
        context["fsGroupChangePolicy"] = json!("OnRootMismatch");
        context["runAsUser"] = json!(ID);
        context["runAsGroup"] = json!(ID);
    }
    context
}

/// Returns the security context of a container.
pub(crate) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
    })
}

/// Has the images of a pod pulled with these Secrets.
pub(crate) fn pull_with<'n>(pod: &mut Value, secrets: impl Iterator<Item = &'n String>) {
    let secrets: Vec<_> = secrets.map(|name| json!({"name": name})).collect();
    if !secrets.is_empty() {
        pod["imagePullSecrets"] = secrets.into();
    }
}

/// Returns the probes of gateways and shims. Both serve them on the metrics port.
pub(crate) fn probes() -> [(&'static str, Value); 3] {
    let get = |path: &str| json!({"path": path, "port": "metrics"});
    [
        ("startupProbe", json!({"httpGet": get("/healthz"), "periodSeconds": 1, "failureThreshold": 60})),
        ("readinessProbe", json!({"httpGet": get("/readyz"), "periodSeconds": 2, "failureThreshold": 2})),
        ("livenessProbe", json!({"httpGet": get("/healthz"), "periodSeconds": 10, "failureThreshold": 3})),
    ]
}

/// Returns the ports of gateways and shims.
pub(crate) fn ports() -> [Value; 2] {
    [port("https", 8443), port("metrics", 9090)]
}

/// Returns a port of a container.
pub(crate) fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "containerPort": number, "protocol": "TCP"})
}
