//! Names that several components share: API group, labels, annotations and the finalizer.

use mcp_fleet_policy::units::TextForm;

/// API group of every kind.
pub const GROUP: &str = "mcp-fleet.dev";
/// API version of every kind.
pub const VERSION: &str = "v1alpha1";
/// Field manager for server-side apply.
pub const FIELD_MANAGER: &str = "mcp-fleet";
/// Finalizer on objects that the operator tears down in a fixed order.
pub const FINALIZER: &str = "mcp-fleet.dev/teardown";
/// Label: name of the tenant. On a namespace, it also permits that tenant to adopt the namespace.
pub const LABEL_TENANT: &str = "mcp-fleet.dev/tenant";
/// Annotation of a tenant's own namespace that the operator created: UID of the tenant.
pub const CREATED_FOR: &str = "mcp-fleet.dev/created-for";
/// Label: UID of the tenant. Identifies the owner across namespaces.
pub const LABEL_TENANT_UID: &str = "mcp-fleet.dev/tenant-uid";
/// Label: name of the server.
pub const LABEL_SERVER: &str = "mcp-fleet.dev/server";
/// Label: UID of the server.
pub const LABEL_SERVER_UID: &str = "mcp-fleet.dev/server-uid";
/// Label: name of the principal.
pub const LABEL_PRINCIPAL: &str = "mcp-fleet.dev/principal";
/// Prefix of the label of a Secret by which a server may have it; the rest is the name of the server.
const SERVER_SECRET_PREFIX: &str = "mcp-fleet.dev/server.";
/// Annotation on an MCPPrincipal: an RFC 3339 time. Each new value clears the principal's breakers and what it reported.
pub const CLEAR_BREAKERS: &str = "mcp-fleet.dev/clear-breakers";
/// Annotation on an MCPBudget: adds to its limits for one period ([`crate::top_up`]).
pub const TOP_UP: &str = "mcp-fleet.dev/top-up";
/// `ServiceAccount` of the operator, in its own namespace.
pub const OPERATOR_SERVICE_ACCOUNT: &str = "mcp-fleet-operator";
/// `RoleBinding` that gives the operator access to a namespace of a tenant.
pub const OPERATOR_BINDING: &str = "mcp-fleet-operator";
/// `ClusterRole` of the operator in runtime namespaces.
pub const RUNTIME_ROLE: &str = "mcp-fleet-operator-runtime";
/// `ClusterRole` of the operator in the tenants' own namespaces.
pub const TENANT_ROLE: &str = "mcp-fleet-operator-tenant";
/// `ConfigMap` in a tenant's own namespace that shows the tenant its upper limits.
pub const CEILINGS: &str = "mcp-fleet-tenant";
/// Longest name of an MCP Fleet object. Services and Secrets are named after it, with a prefix or suffix.
pub const MAX_NAME: usize = 52;
/// What the name of the runtime namespace adds to the tenant's name by default.
pub const RUNTIME_NAMESPACE_SUFFIX: &str = "-mcp";
/// Longest name of a namespace.
pub const MAX_NAMESPACE: usize = 63;
/// Name of a tool on its server.
pub static TOOL_NAME: TextForm = TextForm::new("^[A-Za-z0-9_./$-]([A-Za-z0-9_./$ -]*[A-Za-z0-9_./$-])?$", 128);
/// Name of a tool that common model APIs accept.
pub static PORTABLE_TOOL_NAME: TextForm = TextForm::new("^[A-Za-z0-9_-]+$", 64);
/// Pattern of an RFC 1035 label: a valid name of a Service.
pub const DNS_1035: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// Pattern of an RFC 1123 label: a valid name of a namespace.
pub const DNS_1123: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// Returns the label of a Secret by which the server of this name may have it.
pub fn server_secret_label(server: &str) -> String {
    format!("{SERVER_SECRET_PREFIX}{server}")
}
