//! The runtime namespace, its Pod Security labels, and the quotas.

use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use mcp_fleet_crds::tenant::PodSecurity;
use serde_json::json;

use super::metadata;
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::Rendered;
use crate::kubernetes::labels;

/// The name of quota and limits, in each namespace.
const NAME: &str = "mcp-fleet";

/// The runtime namespace. The tenant's own is made in the apply step, once: it belongs to the tenant.
pub(super) fn render(tenant: &Tenant) -> Vec<Rendered> {
    let mut labels = labels::of_tenant("runtime", &tenant.name, &tenant.uid);
    let level = match tenant.pod_security {
        PodSecurity::Restricted => "restricted",
        PodSecurity::Baseline => "baseline",
    };
    labels.insert("pod-security.kubernetes.io/enforce".into(), level.into());
    labels.insert("pod-security.kubernetes.io/enforce-version".into(), "latest".into());
    labels.insert("pod-security.kubernetes.io/warn".into(), "restricted".into());
    labels.insert("pod-security.kubernetes.io/audit".into(), "restricted".into());
    vec![Rendered::json::<Namespace>(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": tenant.runtime_namespace, "labels": labels},
    }))]
}

/// Quotas where the tenant has hard limits, and defaults for containers that name none.
pub(super) fn quotas(tenant: &Tenant) -> Vec<Rendered> {
    let places = [(&tenant.namespace, &tenant.quota), (&tenant.runtime_namespace, &tenant.runtime_quota)];
    let quotas = places.into_iter().filter(|(_, hard)| !hard.is_empty()).map(|(namespace, hard)| {
        Rendered::json::<ResourceQuota>(json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": metadata(tenant, "quota", namespace, NAME),
            "spec": {"hard": hard},
        }))
    });
    let limits = Rendered::json::<LimitRange>(json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": metadata(tenant, "quota", &tenant.runtime_namespace, NAME),
        "spec": {"limits": [{
            "type": "Container",
            "default": {"cpu": "1", "memory": "256Mi", "ephemeral-storage": "256Mi"},
            "defaultRequest": {"cpu": "20m", "memory": "64Mi", "ephemeral-storage": "16Mi"},
        }]},
    }));
    quotas.chain([limits]).collect()
}
