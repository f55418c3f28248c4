//! The objects that the operator needs in the namespaces of tenants: their names are reserved for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{Admission, Builder, operator_user};
use crate::names::{CEILINGS, GROUP, LABEL_TENANT, OPERATOR_BINDING};

/// Returns the policy that lets only the operator write these objects. A tenant's own administrator may write every
/// `RoleBinding` and `ConfigMap` in its namespace otherwise.
///
/// Those who may delete MCPTenants are the platform team, which may do everything anyway, and the controllers of
/// Kubernetes that delete what is in a deleted namespace.
pub(super) fn policy(namespace: &str) -> Admission {
    let object = "(request.operation == 'DELETE' ? oldObject : object)";
    let operator = operator_user(namespace);
    let mut admission = Builder::new("mcp-fleet-reserved-objects", &["CREATE", "UPDATE", "DELETE"])
        .on("", "v1", &["configmaps"])
        .on("rbac.authorization.k8s.io", "v1", &["rolebindings"])
        .when(
            "reserved-name",
            format!(
                "{object}.metadata.name == (request.resource.resource == 'configmaps' ? '{CEILINGS}' : '{OPERATOR_BINDING}')"
            ),
        )
        .require(
            "Forbidden",
            format!(
                "request.userInfo.username == {operator} || \
                 authorizer.group('{GROUP}').resource('mcptenants').check('delete').allowed()"
            ),
            format!(
                "the ConfigMap {CEILINGS} and the RoleBinding {OPERATOR_BINDING} in the namespace of a tenant belong to \
                 the operator, which alone writes them; use another name"
            ),
        )
        .build();
    let of_tenant =
        LabelSelectorRequirement { key: LABEL_TENANT.to_owned(), operator: "Exists".to_owned(), values: None };
    let constraints = admission.policy.spec.get_or_insert_default().match_constraints.get_or_insert_default();
    constraints.namespace_selector =
        Some(LabelSelector { match_expressions: Some(vec![of_tenant]), match_labels: None });
    admission
}
