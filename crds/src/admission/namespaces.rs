//! Which namespaces belong to tenants: objects of MCP Fleet exist only there, and only the platform team decides.

use super::{Admission, Builder, NAMESPACE_LABELS, marks as marked};
use crate::names::{CREATED_FOR, GROUP, LABEL_TENANT, LABEL_TENANT_UID};

/// Kinds that tenants write.
pub(super) const OF_TENANTS: [&str; 4] = ["mcpservers", "mcpscopes", "mcpprincipals", "mcpbudgets"];

/// CEL expression for whether a request creates an object or changes its spec. Other updates always pass, so that
/// finalizers can be removed from every object.
pub(super) const WRITES_SPEC: &str = "request.operation == 'CREATE' || object.spec != oldObject.spec";

/// Returns the policy that refuses objects in namespaces that belong to no tenant. The operator holds every object of
/// these kinds in memory, and the role `edit` of any namespace permits creating them.
pub(super) fn objects() -> Admission {
    let [of_tenant, runtime] = marked("variables.labels");
    Builder::new("mcp-fleet-tenant-namespaces", &["CREATE", "UPDATE"])
        .on_our_kinds(&OF_TENANTS)
        .when("writes-the-spec", WRITES_SPEC)
        .variable("labels", NAMESPACE_LABELS)
        .require_or_explain(
            "Forbidden",
            of_tenant,
            format!(
                "'the namespace ' + request.namespace + ' belongs to no MCPTenant: use the namespace of a tenant, or ask \
                 the platform team for an MCPTenant that has this one. If there is one, apply the object again once the \
                 namespace has the label {LABEL_TENANT}'"
            ),
        )
        .require_or_explain(
            "Forbidden",
            format!("!({runtime})"),
            "'the namespace ' + request.namespace + ' is the runtime namespace of a tenant, which only the operator \
             writes in: use the namespace of the tenant'",
        )
        .build()
}

/// Returns the policy on the marks that say which tenant a namespace belongs to. Without it, anyone who may label a
/// namespace could pass for a tenant.
pub(super) fn marks() -> Admission {
    let value = |of: &str, (part, key): (&str, &str)| format!("{of}.metadata.?{part}[?'{key}'].orValue('')");
    let changed = [("labels", LABEL_TENANT), ("labels", LABEL_TENANT_UID), ("annotations", CREATED_FOR)]
        .map(|mark| format!("{} != (oldObject == null ? '' : {})", value("object", mark), value("oldObject", mark)));
    Builder::new("mcp-fleet-namespace-marks", &["CREATE", "UPDATE"])
        .on("", "v1", &["namespaces"])
        .when("changes-a-mark", changed.join(" || "))
        .require(
            "Forbidden",
            format!("authorizer.group('{GROUP}').resource('mcptenants').check('patch').allowed()"),
            format!(
                "the labels {LABEL_TENANT} and {LABEL_TENANT_UID} and the annotation {CREATED_FOR} say which MCPTenant a \
                 namespace belongs to; only those who may patch MCPTenants may set, change or remove them: ask the \
                 platform team"
            ),
        )
        .build()
}
