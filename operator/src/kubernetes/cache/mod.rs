//! What the API server holds, kept in memory by watches: the custom resources in full, Services for their addresses,
//! and the metadata of everything that we made.
//!
//! It runs on every replica, so that a new leader starts with full stores. A change is announced after the store has
//! it. Nothing here watches Secrets across the cluster.
//!
//! A custom resource that cannot be read is not in the store of its kind, which controllers use. It is in
//! [`Cache::objects`], with its metadata and the fields that can be read.

mod guard;
mod kinds;
mod objects;
mod owned;
mod run;
mod secrets;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod watch_tests;

pub(crate) use guard::{GuardedKind, Unreadable};
pub(crate) use kinds::resource_of;
pub(crate) use objects::{Entry, Objects};
pub(crate) use owned::{Key, Owned};
pub(crate) use run::run;
pub(crate) use secrets::{OPERATOR_BINDING, watch_secrets};

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use tokio::sync::broadcast;

use crate::kubernetes::labels::{self, Labels};

/// What changed, told after the store has it.
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
    /// The tenants that can be read.
    pub tenants: Store<MCPTenant>,
    /// The servers that can be read.
    pub servers: Store<MCPServer>,
    /// The scopes that can be read.
    pub scopes: Store<MCPScope>,
    /// The principals that can be read.
    pub principals: Store<MCPPrincipal>,
    /// The budgets that can be read.
    pub budgets: Store<MCPBudget>,
    /// All objects of these kinds, readable or not.
    pub objects: AllObjects,
    /// The Services of servers.
    pub services: Store<Service>,
    /// Namespaces that carry the label `mcp-fleet.dev/tenant`.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Metadata of everything else that we made, but for Secrets.
    pub owned: Arc<Owned>,
    changes: broadcast::Sender<Change>,
}

/// All objects of the kinds that are compiled into policies, readable or not.
#[derive(Clone, Debug)]
pub(crate) struct AllObjects {
    pub tenants: Objects<MCPTenant>,
    pub servers: Objects<MCPServer>,
    pub scopes: Objects<MCPScope>,
    pub principals: Objects<MCPPrincipal>,
    pub budgets: Objects<MCPBudget>,
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
        let all = self.all_tenants();
        let tenant = all.iter().find(|tenant| tenant.metadata.name.as_ref() == Some(name))?;
        if tenant.spec.namespace.name != namespace || found.metadata.deletion_timestamp.is_some() {
            return None;
        }
        older_claim(tenant, &all).is_none().then(|| Arc::clone(tenant))
    }

    /// All tenants whose claims are known. Of one that cannot be read, that is its readable part: it keeps its namespaces,
    /// and its objects stay in force.
    pub(crate) fn all_tenants(&self) -> Vec<Arc<MCPTenant>> {
        self.objects.tenants.all().iter().filter_map(Entry::object).collect()
    }

    /// Whether a namespace was made for a gateway and its servers. Nobody but us writes in one, so what the labels of an
    /// object say about it is to be believed there and nowhere else.
    pub(crate) fn is_runtime(&self, namespace: &str) -> bool {
        let found = self.namespaces.get(&ObjectRef::new(namespace));
        found.is_some_and(|namespace| namespace.labels().contains_key(labels::TENANT_UID))
    }

    /// The tenant with that UID, or its readable part.
    pub(crate) fn tenant_by_uid(&self, uid: &str) -> Option<Arc<MCPTenant>> {
        self.objects.tenants.with_uid(uid)?.object()
    }

    /// Whether there is a tenant with that UID, readable or not.
    pub(crate) fn has_tenant(&self, uid: &str) -> bool {
        self.objects.tenants.with_uid(uid).is_some()
    }

    /// The server with that UID, if it can be read.
    pub(crate) fn server_by_uid(&self, uid: &str) -> Option<Arc<MCPServer>> {
        with_uid(&self.servers, uid)
    }

    /// Whether there is a server with that UID, readable or not.
    pub(crate) fn has_server(&self, uid: &str) -> bool {
        self.objects.servers.with_uid(uid).is_some()
    }

    /// Whether there is a principal with that UID, readable or not.
    pub(crate) fn has_principal(&self, uid: &str) -> bool {
        self.objects.principals.with_uid(uid).is_some()
    }

    /// The objects of a store in the namespace of the tenant with that name.
    pub(crate) fn of_tenant_named<K: Stored>(&self, store: &Store<K>, name: &str) -> Vec<ObjectRef<K>> {
        let all = self.all_tenants();
        of_tenant(store, all.into_iter().find(|tenant| tenant.metadata.name.as_deref() == Some(name)))
    }

    /// The objects of a store in the namespace of the tenant with that UID.
    pub(crate) fn of_tenant_with_uid<K: Stored>(&self, store: &Store<K>, uid: &str) -> Vec<ObjectRef<K>> {
        of_tenant(store, self.tenant_by_uid(uid))
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

/// The one object, as the list that a controller is asked for.
pub(crate) fn only<K: Stored>(object: Option<Arc<K>>) -> Vec<ObjectRef<K>> {
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
