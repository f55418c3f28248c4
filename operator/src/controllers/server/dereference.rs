//! Step one: reads, all from the stores. Whose namespace the server is in, and whether its place is prepared.

use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use mcp_fleet_crds::{MCPServer, MCPTenant};

use crate::context::Context;
use crate::kubernetes::cache::{Key, OPERATOR_BINDING};
use crate::kubernetes::labels;

/// What was read.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The tenant that owns the server's namespace.
    pub tenant: Option<Arc<MCPTenant>>,
    /// Whether the runtime namespace is there, with its fences, and the operator may write in it.
    pub prepared: bool,
}

/// Reads it.
pub(crate) fn dereference(object: &MCPServer, ctx: &Context) -> Facts {
    let tenant = ctx.cache.tenant_of_namespace(&object.namespace().unwrap_or_default());
    let prepared = tenant.as_ref().is_some_and(|tenant| {
        let runtime = tenant.runtime_namespace();
        let ours = ctx.cache.namespaces.get(&ObjectRef::new(&runtime)).is_some_and(|namespace| {
            namespace.metadata.deletion_timestamp.is_none()
                && namespace.labels().get(labels::TENANT_UID) == tenant.metadata.uid.as_ref()
        });
        let has = |kind: &str, name: &str| {
            ctx.cache.owned.has(&Key { kind: kind.into(), namespace: runtime.clone(), name: name.into() })
        };
        ours && has("RoleBinding", OPERATOR_BINDING) && has("NetworkPolicy", "default-deny")
    });
    Facts { tenant, prepared }
}
