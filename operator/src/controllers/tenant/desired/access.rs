//! The operator's permissions, granted in each namespace of a tenant and nowhere else. The tenant gets none in the runtime
//! namespace. An admission policy holds the operator to these bindings (`mcp_fleet_crds::admission`).

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::json;

use super::metadata;
use crate::controllers::manifests::settings::Settings;
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::Rendered;
use crate::kubernetes::cache::OPERATOR_BINDING;

/// Renders the operator's access to the tenant's own namespace.
pub(in super::super) fn to_own(tenant: &Tenant, settings: &Settings) -> Rendered {
    render(tenant, settings, &tenant.namespace, &settings.tenant_role)
}

/// Renders the operator's access to the runtime namespace.
pub(in super::super) fn to_runtime(tenant: &Tenant, settings: &Settings) -> Rendered {
    render(tenant, settings, &tenant.runtime_namespace, &settings.runtime_role)
}

fn render(tenant: &Tenant, settings: &Settings, namespace: &str, role: &str) -> Rendered {
    Rendered::json::<RoleBinding>(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata(tenant, "access", namespace, OPERATOR_BINDING),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{
            "kind": "ServiceAccount",
            "name": settings.service_account,
            "namespace": settings.operator_namespace,
        }],
    }))
}
