//! The operator's permissions, granted in each namespace of a tenant and nowhere else. The tenant gets none in the runtime
//! namespace.

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::json;

use super::metadata;
use crate::controllers::manifests::settings::Settings;
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::Rendered;
use crate::kubernetes::cache::OPERATOR_BINDING;

pub(super) fn render(tenant: &Tenant, settings: &Settings) -> [Rendered; 2] {
    [(&tenant.namespace, &settings.tenant_role), (&tenant.runtime_namespace, &settings.runtime_role)].map(
        |(namespace, role)| {
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
        },
    )
}
