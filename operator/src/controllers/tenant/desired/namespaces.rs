//! The runtime namespace, its Pod Security labels, and the quotas.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mcp_fleet_core::labels;
use mcp_fleet_crds::tenant::PodSecurity;
use serde_json::json;

use super::metadata;
use crate::controllers::manifests::resources::{DEFAULT_LIMITS, DEFAULT_REQUESTS};
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::Rendered;

/// Name of the quota and of the limits, in each namespace.
const NAME: &str = "mcp-fleet";

/// Renders the runtime namespace.
pub(super) fn runtime(tenant: &Tenant) -> Rendered {
    let mut labels = labels::of_tenant("runtime", &tenant.id.name, &tenant.id.uid);
    let level = match tenant.pod_security {
        PodSecurity::Restricted => "restricted",
        PodSecurity::Baseline => "baseline",
    };
    labels.insert("pod-security.kubernetes.io/enforce".into(), level.into());
    labels.insert("pod-security.kubernetes.io/enforce-version".into(), "latest".into());
    labels.insert("pod-security.kubernetes.io/warn".into(), "restricted".into());
    labels.insert("pod-security.kubernetes.io/audit".into(), "restricted".into());
    Rendered::json::<Namespace>(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": tenant.runtime_namespace, "labels": labels},
    }))
}

/// Renders the quota of a namespace.
pub(super) fn quota(tenant: &Tenant, namespace: &str, hard: &BTreeMap<String, Quantity>) -> Rendered {
    Rendered::json::<ResourceQuota>(json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": metadata(tenant, "quota", namespace, NAME),
        "spec": {"hard": hard},
    }))
}

/// Renders the quota of the runtime namespace, if the tenant limits anything there, and defaults for containers that set no resources.
pub(super) fn limits(tenant: &Tenant) -> Vec<Rendered> {
    let limits = Rendered::json::<LimitRange>(json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": metadata(tenant, "quota", &tenant.runtime_namespace, NAME),
        "spec": {"limits": [{
            "type": "Container",
            "default": DEFAULT_LIMITS.render(),
            "defaultRequest": DEFAULT_REQUESTS.render(),
        }]},
    }));
    let quota = quota(tenant, &tenant.runtime_namespace, &tenant.runtime_quota);
    (!tenant.runtime_quota.is_empty()).then_some(quota).into_iter().chain([limits]).collect()
}
