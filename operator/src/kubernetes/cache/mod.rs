//! What the API server holds, kept in memory by watches: the custom resources in full, Services for their addresses,
//! and the metadata of everything that we made.
//!
//! It runs on every replica, so that a new leader starts with full stores. A change is announced after the store has
//! it. Nothing here watches Secrets across the cluster.

mod kinds;
mod owned;
mod run;
mod secrets;

pub(crate) use kinds::resource_of;
pub(crate) use owned::{Key, Meta, Owned};
pub(crate) use run::run;
pub(crate) use secrets::watch_secrets;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::core::PartialObjectMeta;
#[cfg(test)]
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use tokio::sync::broadcast;

use crate::kubernetes::labels::{self, Labels};

/// Name of the `RoleBinding` that gives the operator access to a namespace of a tenant.
pub(crate) const OPERATOR_BINDING: &str = "mcp-fleet-operator";

/// A change in the cluster, announced after the cache has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A tenant, by name.
    Tenant(String),
    /// A server, by namespace and name.
    Server(String, String),
    /// A scope, by namespace and name.
    Scope(String, String),
    /// A principal, by namespace and name.
    Principal(String, String),
    /// A budget, by namespace and name.
    Budget(String, String),
    /// A server's Service: its labels.
    Service(Labels),
    /// A namespace that names a tenant.
    Namespace(String),
    /// Something that we made: its labels, as they were before if they were changed.
    Owned(Labels),
}

/// The stores.
#[derive(Clone)]
pub(crate) struct Cache {
    /// All tenants.
    pub tenants: Store<MCPTenant>,
    /// All servers.
    pub servers: Store<MCPServer>,
    /// All scopes.
    pub scopes: Store<MCPScope>,
    /// All principals.
    pub principals: Store<MCPPrincipal>,
    /// All budgets.
    pub budgets: Store<MCPBudget>,
    /// The Services of servers.
    pub services: Store<Service>,
    /// Namespaces that carry the label `mcp-fleet.dev/tenant`.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Metadata of everything else that we made, but for Secrets.
    pub owned: Arc<Owned>,
    changes: broadcast::Sender<Change>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("tenants", &self.tenants.len()).finish_non_exhaustive()
    }
}

impl Cache {
    /// Changes from now on. A receiver that lags has to look at everything.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn announce(&self, change: Change) {
        // Before the first subscriber there is nobody to tell.
        let _ = self.changes.send(change);
    }

    /// The tenant that owns a namespace: the namespace names it by label, and it is the oldest that claims it.
    pub(crate) fn tenant_of_namespace(&self, namespace: &str) -> Option<Arc<MCPTenant>> {
        let found = self.namespaces.get(&ObjectRef::new(namespace))?;
        let name = found.labels().get(labels::TENANT)?;
        let tenant = self.tenants.get(&ObjectRef::new(name))?;
        if tenant.spec.namespace.name != namespace || found.metadata.deletion_timestamp.is_some() {
            return None;
        }
        older_claim(&tenant, &self.tenants.state()).is_none().then_some(tenant)
    }

    /// Whether a namespace was made for a gateway and its servers. Nobody but us writes in one, so what the labels of an
    /// object say about it is to be believed there and nowhere else.
    pub(crate) fn is_runtime(&self, namespace: &str) -> bool {
        let found = self.namespaces.get(&ObjectRef::new(namespace));
        found.is_some_and(|namespace| namespace.labels().contains_key(labels::TENANT_UID))
    }

    /// Whether the operator may work in a namespace of a tenant.
    pub(crate) fn has_access(&self, namespace: &str) -> bool {
        let (kind, name) = ("RoleBinding".into(), OPERATOR_BINDING.into());
        self.owned.has(&Key { kind, namespace: namespace.into(), name })
    }

    /// The tenant with that UID.
    pub(crate) fn tenant_by_uid(&self, uid: &str) -> Option<Arc<MCPTenant>> {
        with_uid(&self.tenants, uid)
    }

    /// The server with that UID.
    pub(crate) fn server_by_uid(&self, uid: &str) -> Option<Arc<MCPServer>> {
        with_uid(&self.servers, uid)
    }

    /// The objects of a store in the namespace of the tenant with that name.
    pub(crate) fn of_tenant_named<K: Stored>(&self, store: &Store<K>, name: &str) -> Vec<ObjectRef<K>> {
        of_tenant(store, self.tenants.get(&ObjectRef::new(name)))
    }

    /// The objects of a store in the namespace of the tenant with that UID.
    pub(crate) fn of_tenant_with_uid<K: Stored>(&self, store: &Store<K>, uid: &str) -> Vec<ObjectRef<K>> {
        of_tenant(store, self.tenant_by_uid(uid))
    }
}

/// Writers of the stores that tests fill.
#[cfg(test)]
pub(crate) struct CacheWriters {
    pub tenants: Writer<MCPTenant>,
    pub namespaces: Writer<PartialObjectMeta<Namespace>>,
}

#[cfg(test)]
impl Cache {
    /// Returns an empty cache without watches, and the writers of its stores.
    pub(crate) fn writable() -> (Self, CacheWriters) {
        use kube::runtime::reflector::store;
        let ((tenants, tenant_writer), (namespaces, namespace_writer)) = (store(), store());
        let cache = Self {
            tenants,
            servers: store().0,
            scopes: store().0,
            principals: store().0,
            budgets: store().0,
            services: store().0,
            namespaces,
            owned: Arc::default(),
            changes: broadcast::channel(16).0,
        };
        (cache, CacheWriters { tenants: tenant_writer, namespaces: namespace_writer })
    }
}

/// What a store holds.
pub(crate) trait Stored: Resource<DynamicType = ()> + Clone + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Stored for K {}

/// The object of a store with that UID.
pub(crate) fn with_uid<K: Stored>(store: &Store<K>, uid: &str) -> Option<Arc<K>> {
    store.find(|object| object.meta().uid.as_deref() == Some(uid))
}

/// The objects of a store in a namespace.
pub(crate) fn in_namespace<K: Stored>(store: &Store<K>, namespace: &str) -> Vec<ObjectRef<K>> {
    let found = store.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace));
    found.iter().map(|object| ObjectRef::from_obj(&**object)).collect()
}

/// Returns a reference to the object, if there is one, as controllers queue it.
pub(crate) fn references<K: Stored>(object: Option<Arc<K>>) -> Vec<ObjectRef<K>> {
    object.map(|object| ObjectRef::from_obj(&*object)).into_iter().collect()
}

fn of_tenant<K: Stored>(store: &Store<K>, tenant: Option<Arc<MCPTenant>>) -> Vec<ObjectRef<K>> {
    tenant.map(|tenant| in_namespace(store, &tenant.spec.namespace.name)).unwrap_or_default()
}

/// The older tenant that claims one of the namespaces of this one, if there is any. Age goes by creation time, then by
/// UID, so that every replica sees the same order.
pub(crate) fn older_claim(tenant: &MCPTenant, all: &[Arc<MCPTenant>]) -> Option<Arc<MCPTenant>> {
    let age = |tenant: &MCPTenant| {
        (tenant.metadata.creation_timestamp.as_ref().map(|time| time.0), tenant.metadata.uid.clone())
    };
    let claims = |tenant: &MCPTenant| [tenant.spec.namespace.name.clone(), tenant.runtime_namespace()];
    let ours = claims(tenant);
    all.iter()
        .filter(|other| other.metadata.uid != tenant.metadata.uid && age(other) < age(tenant))
        .find(|other| claims(other).iter().any(|namespace| ours.contains(namespace)))
        .cloned()
}

/// The tenant whose gateway runs in a namespace: of those that claim it, the one that no older claim keeps out.
pub(crate) fn tenant_of_runtime(namespace: &str, all: &[Arc<MCPTenant>]) -> Option<Arc<MCPTenant>> {
    let mut claims = all.iter().filter(|tenant| tenant.runtime_namespace() == namespace);
    claims.find(|tenant| older_claim(tenant, all).is_none()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, namespace: &str, uid: &str, created: &str) -> Arc<MCPTenant> {
        let json = serde_json::json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
            "metadata": {"name": name, "uid": uid, "creationTimestamp": created},
            "spec": {"namespace": {"name": namespace}}
        });
        Arc::new(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn of_two_claims_on_a_namespace_the_older_wins() {
        let old = tenant("acme", "shared", "u-1", "2026-11-01T00:00:00Z");
        let new = tenant("beta", "shared", "u-2", "2026-11-02T00:00:00Z");
        let all = [old.clone(), new.clone()];
        assert_eq!(older_claim(&new, &all).unwrap().name_any(), "acme");
        assert!(older_claim(&old, &all).is_none());
    }

    #[test]
    fn a_tenant_cannot_claim_the_runtime_namespace_of_an_older_one() {
        let old = tenant("acme", "acme", "u-1", "2026-11-01T00:00:00Z");
        let new = tenant("beta", "acme-mcp", "u-2", "2026-11-02T00:00:00Z");
        assert!(older_claim(&new, &[old, new.clone()]).is_some());
    }

    #[test]
    fn a_younger_claim_on_a_runtime_namespace_does_not_hide_the_older() {
        let old = tenant("acme", "acme", "u-1", "2026-11-01T00:00:00Z");
        let new = tenant("beta", "beta", "u-2", "2026-11-02T00:00:00Z");
        let mut new = Arc::unwrap_or_clone(new);
        new.spec.runtime_namespace = Some("acme-mcp".into());
        let new = Arc::new(new);
        for all in [[old.clone(), new.clone()], [new, old]] {
            assert_eq!(tenant_of_runtime("acme-mcp", &all).unwrap().name_any(), "acme");
            assert!(tenant_of_runtime("beta-mcp", &all).is_none());
        }
    }

    #[test]
    fn claims_of_the_same_second_have_an_order_too() {
        let one = tenant("acme", "shared", "u-1", "2026-11-01T00:00:00Z");
        let two = tenant("beta", "shared", "u-2", "2026-11-01T00:00:00Z");
        let all = [one.clone(), two.clone()];
        assert!(older_claim(&two, &all).is_some() && older_claim(&one, &all).is_none());
    }
}
