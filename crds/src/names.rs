//! Names that more than one part has to agree on: group, labels, annotations, the finalizer.

/// The API group of every kind.
pub const GROUP: &str = "mcp-fleet.dev";
/// The version of every kind.
pub const VERSION: &str = "v1alpha1";
/// The field manager of server-side apply.
pub const FIELD_MANAGER: &str = "mcp-fleet";
/// The finalizer of objects whose teardown has an order.
pub const FINALIZER: &str = "mcp-fleet.dev/teardown";
/// Label: the tenant's name. On a namespace it is also the consent to be adopted by that tenant.
pub const LABEL_TENANT: &str = "mcp-fleet.dev/tenant";
/// Label: the tenant's UID; ownership across namespaces goes by it.
pub const LABEL_TENANT_UID: &str = "mcp-fleet.dev/tenant-uid";
/// Label: the server's name.
pub const LABEL_SERVER: &str = "mcp-fleet.dev/server";
/// Label: the server's UID.
pub const LABEL_SERVER_UID: &str = "mcp-fleet.dev/server-uid";
/// Label: the principal's name.
pub const LABEL_PRINCIPAL: &str = "mcp-fleet.dev/principal";
/// The longest name of an object of ours: Services and Secrets are named after it, with a prefix or suffix.
pub const MAX_NAME: usize = 52;
/// RFC 1035 label: what a Service may be called.
pub const DNS_1035: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// RFC 1123 label: what a namespace may be called.
pub const DNS_1123: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
