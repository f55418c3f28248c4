//! The copy of the tenant's upper limits in its own namespace. Its members may not read `MCPTenant`s, which are
//! cluster-scoped, but they have to know what limits them.

use k8s_openapi::api::core::v1::ConfigMap;
use mcp_fleet_crds::names::CEILINGS;
use serde_json::json;

use super::metadata;
use crate::controllers::tenant::validate::Tenant;
use crate::kubernetes::apply::Rendered;

/// Renders the `ConfigMap` with the upper limits. A spec contains no secrets, so the copy is of the whole spec: a limit
/// that is added to the API is in it by itself.
pub(super) fn render(tenant: &Tenant) -> Rendered {
    let comment = format!(
        "# The upper limits of this namespace: the spec of the MCPTenant {}, with its defaults. The platform team sets\n\
         # them. The operator writes this copy, and no one else can.\n",
        tenant.id.name
    );
    Rendered::json::<ConfigMap>(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(tenant, "ceilings", &tenant.namespace, CEILINGS),
        "data": {"tenant": tenant.id.name, "ceilings.yaml": comment + &tenant.ceilings},
    }))
}
