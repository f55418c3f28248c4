//! What the operator itself may do, beyond what RBAC can express. Its rights on `RoleBinding`s and namespaces hold for the
//! whole cluster, because a tenant's namespaces have no name in common. These policies pin them to the tenants', so that
//! a thief of its token gets no further.

use super::{Admission, Builder, NAMESPACE_LABELS, marks, operator_user};
use crate::names::{
    CREATED_FOR, LABEL_TENANT, LABEL_TENANT_UID, OPERATOR_BINDING, OPERATOR_SERVICE_ACCOUNT, RUNTIME_ROLE, TENANT_ROLE,
};

/// CEL expression for the object that a request writes or deletes.
const SUBJECT: &str = "request.operation == 'DELETE' ? oldObject : object";

/// Starts a policy on requests of the operator.
fn of_operator(name: &'static str, operations: &[&str], namespace: &str) -> Builder {
    let user = operator_user(namespace);
    Builder::new(name, operations).when("by-the-operator", format!("request.userInfo.username == {user}"))
}

/// Returns a CEL expression for the list of the namespaces in which the operator has no business.
fn forbidden_namespaces(namespace: &str) -> String {
    format!("['default', 'kube-system', 'kube-public', 'kube-node-lease', '{namespace}']")
}

/// Returns the policy that lets the operator bind only itself, only to its two roles, and only in a tenant's namespaces.
pub(super) fn role_bindings(namespace: &str) -> Admission {
    let [of_tenant, runtime] = marks("variables.labels");
    let forbidden = forbidden_namespaces(namespace);
    of_operator("mcp-fleet-operator-bindings", &["CREATE", "UPDATE", "DELETE"], namespace)
        .on("rbac.authorization.k8s.io", "v1", &["rolebindings"])
        .variable("labels", NAMESPACE_LABELS)
        .variable("binding", SUBJECT)
        .require(
            "Forbidden",
            format!(
                "variables.binding.metadata.name == '{OPERATOR_BINDING}' && {of_tenant} && \
                 !(request.namespace in {forbidden})"
            ),
            format!(
                "the operator may write only RoleBindings named {OPERATOR_BINDING}, and only in namespaces with the label \
                 {LABEL_TENANT}"
            ),
        )
        .require(
            "Forbidden",
            // Finalizers must go from a binding that someone else made, before it is deleted.
            format!(
                "request.operation == 'DELETE' || request.operation == 'UPDATE' && object.roleRef == oldObject.roleRef && \
                 object.?subjects == oldObject.?subjects || object.roleRef.kind == 'ClusterRole' && object.roleRef.name \
                 == ({runtime} ? '{RUNTIME_ROLE}' : '{TENANT_ROLE}') && object.?subjects.orValue([]).size() == 1 && \
                 object.subjects.all(s, s.kind == 'ServiceAccount' && s.name == '{OPERATOR_SERVICE_ACCOUNT}' && \
                 s.?namespace.orValue('') == '{namespace}')"
            ),
            format!(
                "the operator may bind only itself: to the ClusterRole {RUNTIME_ROLE} in runtime namespaces, and to \
                 {TENANT_ROLE} in the tenants' own"
            ),
        )
        .build()
}

/// Returns the policy that lets the operator write only namespaces that it made. It could otherwise mark any namespace as
/// a tenant's and bind itself there, or permit privileged pods.
pub(super) fn namespaces(namespace: &str) -> Admission {
    let forbidden = forbidden_namespaces(namespace);
    let labels = |of: &str| format!("has({of}.metadata.labels) ? {of}.metadata.labels : {{}}");
    let uid = format!("[?'{LABEL_TENANT_UID}'].orValue('')");
    of_operator("mcp-fleet-operator-namespaces", &["CREATE", "UPDATE", "DELETE"], namespace)
        .on("", "v1", &["namespaces"])
        .variable("labels", format!("request.operation == 'DELETE' ? {{}} : {}", labels("object")))
        .variable("before", format!("request.operation == 'CREATE' ? {{}} : {}", labels("oldObject")))
        .require(
            "Forbidden",
            format!("!(({SUBJECT}).metadata.name in {forbidden})"),
            "the operator may not write namespaces of Kubernetes or its own",
        )
        .require(
            "Forbidden",
            format!("request.operation != 'CREATE' || '{LABEL_TENANT}' in variables.labels"),
            format!("the operator may create only namespaces with the label {LABEL_TENANT}"),
        )
        .require(
            "Forbidden",
            format!(
                "request.operation != 'UPDATE' || '{LABEL_TENANT_UID}' in variables.before && variables.labels{uid} == \
                 variables.before{uid}"
            ),
            format!(
                "the operator may change only runtime namespaces, which have the label {LABEL_TENANT_UID}, and not that \
                 label"
            ),
        )
        .require(
            "Forbidden",
            format!(
                "request.operation != 'DELETE' || '{LABEL_TENANT_UID}' in variables.before || \
                 oldObject.metadata.?annotations[?'{CREATED_FOR}'].hasValue()"
            ),
            "the operator may delete only namespaces that it created",
        )
        .require(
            "Forbidden",
            format!(
                "!('{LABEL_TENANT_UID}' in variables.labels) || \
                 variables.labels[?'pod-security.kubernetes.io/enforce'].orValue('') in ['restricted', 'baseline']"
            ),
            "a runtime namespace must enforce the Pod Security Standard restricted or baseline",
        )
        .build()
}

/// Returns the policy that lets the operator change only the finalizers of objects whose specs it follows.
pub(super) fn specs(namespace: &str) -> Admission {
    of_operator("mcp-fleet-operator-specs", &["UPDATE"], namespace)
        .on_our_kinds(&["mcptenants", "mcpservers"])
        .require(
            "Forbidden",
            "object.spec == oldObject.spec && object.metadata.?labels == oldObject.metadata.?labels && \
             object.metadata.?annotations == oldObject.metadata.?annotations",
            "the operator may change only the finalizers and the status of this object",
        )
        .build()
}
