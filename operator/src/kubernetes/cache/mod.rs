//! The operator's cache of API objects, kept current by watches: the custom resources in full, Services for their
//! addresses, and the metadata of every object that the operator made.
//!
//! It runs on every replica, so that a new leader starts with a full cache. A change is announced after the cache has it.
//! Nothing here watches Secrets across the cluster.
//!
//! A custom resource that cannot be read is not in the store of its kind, which controllers use. It is in
//! [`Cache::objects`], with its metadata and the fields that can be read.

mod claims;
mod guard;
mod index;
mod kinds;
mod objects;
mod owned;
mod secrets;
mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod watch_tests;
mod watches;

pub(crate) use claims::{older_claim, tenant_of_runtime};
pub(crate) use guard::{GuardedKind, Unreadable};
pub(crate) use kinds::resource_of;
pub(crate) use objects::{Entry, Objects};
pub(crate) use owned::{Key, Meta, Owned};
pub(crate) use secrets::watch_secrets;
pub(crate) use watches::start;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::core::PartialObjectMeta;
#[cfg(test)]
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
#[cfg(test)]
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use tokio::sync::broadcast;

use crate::kubernetes::labels::{self, Labels};
#[cfg(test)]
use objects::ObjectWriter;

/// Name of the `RoleBinding` that gives the operator access to a namespace of a tenant.
pub(crate) const OPERATOR_BINDING: &str = mcp_fleet_crds::names::OPERATOR_BINDING;

/// A change in the cluster, announced after the cache has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A tenant: its name.
    Tenant(String),
    /// A server: namespace and name.
    Server(String, String),
    /// A scope: namespace and name.
    Scope(String, String),
    /// A principal: namespace and name.
    Principal(String, String),
    /// A budget: namespace and name.
    Budget(String, String),
    /// The Service of a server: its labels.
    Service(Labels),
    /// A namespace that is labelled with a tenant: its name.
    Namespace(String),
    /// An object that the operator made: its labels. If the labels changed, one change is sent for the old and one for the
    /// new.
    Owned(Labels),
}

/// The stores of the cache, and an index of what the operator made.
#[derive(Clone)]
pub(crate) struct Cache {
    /// All objects of the next five kinds, whose stores only have those that can be read.
    pub objects: AllObjects,
    pub tenants: Store<MCPTenant>,
    pub servers: Store<MCPServer>,
    pub scopes: Store<MCPScope>,
    pub principals: Store<MCPPrincipal>,
    pub budgets: Store<MCPBudget>,
    /// The Services of servers.
    pub services: Store<Service>,
    /// Namespaces that carry the label `mcp-fleet.dev/tenant`.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Metadata of every other object that the operator made, except Secrets.
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
    fn new(
        objects: AllObjects,
        services: Store<Service>,
        namespaces: Store<PartialObjectMeta<Namespace>>,
        owned: Arc<Owned>,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        Self {
            tenants: objects.tenants.readable(),
            servers: objects.servers.readable(),
            scopes: objects.scopes.readable(),
            principals: objects.principals.readable(),
            budgets: objects.budgets.readable(),
            objects,
            services,
            namespaces,
            owned,
            changes,
        }
    }

    /// Waits until every store and the index were filled once. Returns false if a watch ended, which happens only at shutdown.
    pub(crate) async fn wait_until_filled(&self) -> bool {
        self.tenants.wait_until_ready().await.is_ok()
            && self.servers.wait_until_ready().await.is_ok()
            && self.scopes.wait_until_ready().await.is_ok()
            && self.principals.wait_until_ready().await.is_ok()
            && self.budgets.wait_until_ready().await.is_ok()
            && self.services.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
            && self.owned.wait_until_filled().await
    }

    /// Subscribes to changes. A subscriber that lags has to check everything.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    pub(crate) fn announce(&self, change: Change) {
        // Fails before the first subscriber.
        let _ = self.changes.send(change);
    }

    /// Returns the tenant that owns a namespace: the namespace is labelled with it, and no older tenant claims it.
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

    /// Returns all tenants whose claims are known. Of one that cannot be read, that is its readable part: it keeps its
    /// namespaces, and its objects stay in force.
    pub(crate) fn all_tenants(&self) -> Vec<Arc<MCPTenant>> {
        self.objects.tenants.all().iter().filter_map(Entry::object).collect()
    }

    /// Whether a namespace was made for a gateway and its servers. Only the operator writes in such a namespace, so the labels
    /// of an object can be trusted there, and nowhere else.
    pub(crate) fn is_runtime(&self, namespace: &str) -> bool {
        let found = self.namespaces.get(&ObjectRef::new(namespace));
        found.is_some_and(|namespace| namespace.labels().contains_key(labels::TENANT_UID))
    }

    /// Whether the operator may work in a namespace of a tenant.
    pub(crate) fn has_access(&self, namespace: &str) -> bool {
        let (kind, name) = ("RoleBinding".into(), OPERATOR_BINDING.into());
        self.owned.has(&Key { kind, namespace: namespace.into(), name })
    }

    /// Returns the tenant with a UID, or its readable part.
    pub(crate) fn tenant_by_uid(&self, uid: &str) -> Option<Arc<MCPTenant>> {
        self.objects.tenants.with_uid(uid)?.object()
    }

    /// Whether there is a tenant with a UID, readable or not.
    pub(crate) fn has_tenant(&self, uid: &str) -> bool {
        self.objects.tenants.with_uid(uid).is_some()
    }

    /// Returns the server with a UID, if it can be read.
    pub(crate) fn server_by_uid(&self, uid: &str) -> Option<Arc<MCPServer>> {
        with_uid(&self.servers, uid)
    }

    /// Whether there is a server with a UID, readable or not.
    pub(crate) fn has_server(&self, uid: &str) -> bool {
        self.objects.servers.with_uid(uid).is_some()
    }

    /// Whether there is a principal with a UID, readable or not.
    pub(crate) fn has_principal(&self, uid: &str) -> bool {
        self.objects.principals.with_uid(uid).is_some()
    }

    /// Returns the objects of a store in the namespace of the tenant with a name.
    pub(crate) fn of_tenant_named<K: Stored>(&self, store: &Store<K>, name: &str) -> Vec<ObjectRef<K>> {
        let all = self.all_tenants();
        of_tenant(store, all.into_iter().find(|tenant| tenant.metadata.name.as_deref() == Some(name)))
    }

    /// Returns the objects of a store in the namespace of the tenant with a UID.
    pub(crate) fn of_tenant_with_uid<K: Stored>(&self, store: &Store<K>, uid: &str) -> Vec<ObjectRef<K>> {
        of_tenant(store, self.tenant_by_uid(uid))
    }
}

/// Writers of the stores that tests fill.
#[cfg(test)]
pub(crate) struct CacheWriters {
    pub tenants: ObjectWriter<MCPTenant>,
    pub servers: ObjectWriter<MCPServer>,
    pub scopes: ObjectWriter<MCPScope>,
    pub principals: ObjectWriter<MCPPrincipal>,
    pub budgets: ObjectWriter<MCPBudget>,
    pub services: Writer<Service>,
    pub namespaces: Writer<PartialObjectMeta<Namespace>>,
}

#[cfg(test)]
impl Cache {
    /// Returns an empty cache without watches, and the writers of its stores.
    pub(crate) fn writable() -> (Self, CacheWriters) {
        /// Returns a store that is filled, with nothing.
        fn store<K: Stored>() -> (Store<K>, Writer<K>) {
            let (store, mut writer) = kube::runtime::reflector::store();
            writer.apply_watcher_event(&Event::Init);
            writer.apply_watcher_event(&Event::InitDone);
            (store, writer)
        }
        let (tenants, tenant_writer) = Objects::filled();
        let (servers, server_writer) = Objects::filled();
        let (scopes, scope_writer) = Objects::filled();
        let (principals, principal_writer) = Objects::filled();
        let (budgets, budget_writer) = Objects::filled();
        let (services, service_writer) = store();
        let (namespaces, namespace_writer) = store();
        let objects = AllObjects { tenants, servers, scopes, principals, budgets };
        let (owned, changes) = (Arc::default(), broadcast::channel(4096).0);
        let cache = Self::new(objects, services, namespaces, owned, changes);
        let writers = CacheWriters {
            tenants: tenant_writer,
            servers: server_writer,
            scopes: scope_writer,
            principals: principal_writer,
            budgets: budget_writer,
            services: service_writer,
            namespaces: namespace_writer,
        };
        (cache, writers)
    }
}

/// A kind that a store holds.
pub(crate) trait Stored: Resource<DynamicType = ()> + Clone + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Stored for K {}

/// Returns the object of a store with a UID.
pub(crate) fn with_uid<K: Stored>(store: &Store<K>, uid: &str) -> Option<Arc<K>> {
    store.find(|object| object.meta().uid.as_deref() == Some(uid))
}

/// Returns the objects of a store in a namespace.
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
