//! The operator's cache of API objects, kept current by watches: the custom resources in full, the
//! addresses of tool pods, and the metadata of every object that the operator made.
//!
//! It runs on every replica, so that a new leader starts with a full cache. A change is announced after the cache has it.
//! Nothing here watches Secrets across the cluster.
//!
//! A custom resource that cannot be read is not in the store of its kind, which controllers use. It is in
//! [`Cache::objects`], with its metadata and the fields that can be read.

mod claims;
mod index;
mod kinds;
mod objects;
mod owned;
mod reports;
mod secrets;
mod store;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod watch_tests;
mod watches;
mod workload;
mod writer;

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, ObjectRefExtra};
use mcp_fleet_core::guard::GuardedKind;
use mcp_fleet_core::labels::{self, OwnerLabels};
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use tokio::sync::broadcast;

use claims::{holder_of_hostname, older_claim};
#[cfg(test)]
use objects::ObjectWriter;

pub(crate) use kinds::resource_of;
pub(crate) use objects::{Entry, Objects, Readable};
pub(crate) use owned::{Key, Knowledge, Meta, Owned, Version};
pub(crate) use reports::{KeptReport, digest_text, report_digest};
pub(crate) use secrets::{Secrets, watch_secrets};
pub(crate) use table::{Row, Table, version};
pub(crate) use watches::start;
pub(crate) use workload::Workload;

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
    /// An EndpointSlice of a server: its labels.
    Endpoints(Arc<OwnerLabels>),
    /// A namespace that is labelled with a tenant: its name.
    Namespace(String),
    /// An object that the operator made: its labels. If the labels changed, one change is sent for the old and one for the
    /// new.
    Owned(Arc<OwnerLabels>),
}

/// The stores of the cache, and an index of what the operator made.
#[derive(Clone)]
pub(crate) struct Cache {
    /// All objects of the next five kinds, whose stores only have those that can be read.
    pub objects: AllObjects,
    pub tenants: Readable<MCPTenant>,
    pub servers: Readable<MCPServer>,
    pub scopes: Readable<MCPScope>,
    pub principals: Readable<MCPPrincipal>,
    pub budgets: Readable<MCPBudget>,
    /// The EndpointSlices of servers and gateways, reduced to what the operator reads of them.
    pub endpoints: Table<Arc<EndpointSlice>>,
    /// Namespaces that carry the label `mcp-fleet.dev/tenant`.
    pub namespaces: Table<Arc<PartialObjectMeta<Namespace>>>,
    /// Metadata of every other object that the operator made, except Secrets.
    pub owned: Arc<Owned<Workload>>,
    /// What is known of our Secrets.
    pub secrets: Arc<Secrets>,
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
        endpoints: Table<Arc<EndpointSlice>>,
        namespaces: Table<Arc<PartialObjectMeta<Namespace>>>,
        owned: Arc<Owned<Workload>>,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        Self {
            tenants: objects.tenants.readable(),
            servers: objects.servers.readable(),
            scopes: objects.scopes.readable(),
            principals: objects.principals.readable(),
            budgets: objects.budgets.readable(),
            objects,
            endpoints,
            namespaces,
            owned,
            secrets: Arc::default(),
            changes,
        }
    }

    /// Waits until every store and the index were filled once. Returns false if a watch ended, which happens only at shutdown.
    pub(crate) async fn wait_until_filled(&self) -> bool {
        self.objects.tenants.wait_until_filled().await
            && self.objects.servers.wait_until_filled().await
            && self.objects.scopes.wait_until_filled().await
            && self.objects.principals.wait_until_filled().await
            && self.objects.budgets.wait_until_filled().await
            && self.endpoints.wait_until_filled().await
            && self.namespaces.wait_until_filled().await
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
        let found = self.namespaces.get("", namespace)?;
        let tenant = self.tenant_named(found.labels().get(labels::TENANT)?)?;
        if tenant.spec.namespace.name != namespace || found.metadata.deletion_timestamp.is_some() {
            return None;
        }
        self.older_claim(&tenant).is_none().then_some(tenant)
    }

    /// Returns an older tenant that claims one of the namespaces of this one.
    pub(crate) fn older_claim(&self, tenant: &MCPTenant) -> Option<Arc<MCPTenant>> {
        older_claim(tenant, &self.rivals(tenant))
    }

    /// Returns another tenant that has a host name, so that this one cannot use it.
    pub(crate) fn holder_of_hostname(&self, tenant: &MCPTenant, hostname: &str) -> Option<Arc<MCPTenant>> {
        let all: Vec<_> = self.objects.tenants.claiming_hostname(hostname).iter().filter_map(Entry::object).collect();
        holder_of_hostname(tenant, hostname, &all)
    }

    /// Returns the tenants that claim a namespace of this one, itself included.
    pub(crate) fn rivals(&self, tenant: &MCPTenant) -> Vec<Arc<MCPTenant>> {
        tenant.claimed_namespaces().iter().flat_map(|namespace| self.claiming(namespace)).collect()
    }

    /// Returns the tenants that claim a namespace.
    pub(crate) fn claiming(&self, namespace: &str) -> Vec<Arc<MCPTenant>> {
        self.objects.tenants.claiming(namespace).iter().filter_map(Entry::object).collect()
    }

    /// Returns the tenant whose gateway runs in a namespace: of the tenants that claim it, the one without an older claim.
    pub(crate) fn tenant_of_runtime(&self, namespace: &str) -> Option<Arc<MCPTenant>> {
        let mut claims = self.claiming(namespace).into_iter().filter(|it| it.runtime_namespace() == namespace);
        claims.find(|tenant| self.older_claim(tenant).is_none())
    }

    /// Returns the tenant with a name, or its readable part.
    pub(crate) fn tenant_named(&self, name: &str) -> Option<Arc<MCPTenant>> {
        self.objects.tenants.get("", name)?.object()
    }

    /// Returns all tenants whose claims are known. Of one that cannot be read, that is its readable part: it keeps its
    /// namespaces, and its objects stay in force.
    pub(crate) fn all_tenants(&self) -> Vec<Arc<MCPTenant>> {
        self.objects.tenants.all().iter().filter_map(Entry::object).collect()
    }

    /// Whether a namespace was made for a gateway and its servers. Only the operator writes in such a namespace, so the labels
    /// of an object can be trusted there, and nowhere else.
    pub(crate) fn is_runtime(&self, namespace: &str) -> bool {
        let found = self.namespaces.get("", namespace);
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

    /// Whether an EndpointSlice in a namespace that was made for a gateway lists the gateway's pod with a UID: then there is
    /// such a pod.
    pub(crate) fn lists_gateway(&self, namespace: &str, pod_uid: &str) -> bool {
        let slices = self.endpoints.in_namespace(namespace);
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let mut uids = endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.as_deref());
        self.is_runtime(namespace) && uids.any(|uid| uid == pod_uid)
    }

    /// Returns the address that an EndpointSlice in a namespace that was made for a gateway lists for the gateway's pod with a
    /// UID.
    pub(crate) fn gateway_address(&self, namespace: &str, pod_uid: &str) -> Option<IpAddr> {
        let slices = self.endpoints.in_namespace(namespace);
        let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let of_pod =
            |endpoint: &&Endpoint| endpoint.target_ref.as_ref().and_then(|pod| pod.uid.as_deref()) == Some(pod_uid);
        let endpoint = endpoints.find(of_pod).filter(|_| self.is_runtime(namespace))?;
        endpoint.addresses.first()?.parse().ok()
    }

    /// Whether there is a tenant with a UID, readable or not.
    pub(crate) fn has_tenant(&self, uid: &str) -> bool {
        self.objects.tenants.with_uid(uid).is_some()
    }

    /// Returns the server with a UID, if it can be read.
    pub(crate) fn server_by_uid(&self, uid: &str) -> Option<Arc<MCPServer>> {
        self.servers.with_uid(uid)
    }

    /// Whether there is a server with a UID, readable or not.
    pub(crate) fn has_server(&self, uid: &str) -> bool {
        self.objects.servers.with_uid(uid).is_some()
    }

    /// Whether there is a principal with a UID, readable or not.
    pub(crate) fn has_principal(&self, uid: &str) -> bool {
        self.objects.principals.with_uid(uid).is_some()
    }

    /// Returns the objects in the namespace of the tenant with a name.
    pub(crate) fn of_tenant_named<K: GuardedKind>(&self, store: &Readable<K>, name: &str) -> Vec<ObjectRef<K>> {
        of_tenant(store, self.tenant_named(name))
    }

    /// Returns the objects in the namespace of the tenant with a UID.
    pub(crate) fn of_tenant_with_uid<K: GuardedKind>(&self, store: &Readable<K>, uid: &str) -> Vec<ObjectRef<K>> {
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
    pub endpoints: Table<Arc<EndpointSlice>>,
    pub namespaces: Table<Arc<PartialObjectMeta<Namespace>>>,
}

#[cfg(test)]
impl Cache {
    /// Returns an empty cache without watches, and the writers of its stores.
    pub(crate) fn writable() -> (Self, CacheWriters) {
        let (tenants, tenant_writer) = Objects::filled();
        let (servers, server_writer) = Objects::filled();
        let (scopes, scope_writer) = Objects::filled();
        let (principals, principal_writer) = Objects::filled();
        let (budgets, budget_writer) = Objects::filled();
        let endpoints = Table::default();
        let endpoints_writer = endpoints.clone();
        let namespaces = Table::default();
        let namespace_writer = namespaces.clone();
        let objects = AllObjects { tenants, servers, scopes, principals, budgets };
        let (owned, changes) = (Arc::default(), broadcast::channel(4096).0);
        let cache = Self::new(objects, endpoints, namespaces, owned, changes);
        let writers = CacheWriters {
            tenants: tenant_writer,
            servers: server_writer,
            scopes: scope_writer,
            principals: principal_writer,
            budgets: budget_writer,
            endpoints: endpoints_writer,
            namespaces: namespace_writer,
        };
        (cache, writers)
    }
}

/// Returns the objects in a namespace, as controllers queue them.
pub(crate) fn in_namespace<K: GuardedKind>(store: &Readable<K>, namespace: &str) -> Vec<ObjectRef<K>> {
    references(store.in_namespace(namespace))
}

/// Returns references to objects, as controllers queue them.
pub(crate) fn references<K: GuardedKind>(objects: impl IntoIterator<Item = Arc<K>>) -> Vec<ObjectRef<K>> {
    let reference = |object: Arc<K>| {
        let mut reference = ObjectRef::from_obj(&*object);
        // Queues would hold UID and version of each object.
        reference.extra = ObjectRefExtra::default();
        reference
    };
    objects.into_iter().map(reference).collect()
}

fn of_tenant<K: GuardedKind>(store: &Readable<K>, tenant: Option<Arc<MCPTenant>>) -> Vec<ObjectRef<K>> {
    tenant.map(|tenant| in_namespace(store, &tenant.spec.namespace.name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a tenant that claims a namespace and a runtime namespace.
    fn tenant(name: &str, created: &str, namespaces: [&str; 2]) -> MCPTenant {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
            "metadata": {"name": name, "uid": format!("uid-of-{name}"), "creationTimestamp": created},
            "spec": {"namespace": {"name": namespaces[0]}, "runtimeNamespace": namespaces[1]},
        }))
        .unwrap()
    }

    #[test]
    fn the_oldest_of_the_tenants_that_claim_a_namespace_has_it() {
        let (cache, mut writers) = Cache::writable();
        let new = tenant("beta", "2026-11-02T00:00:00Z", ["beta", "acme-mcp"]);
        writers.tenants.put(new.clone());
        assert_eq!(cache.tenant_of_runtime("acme-mcp").unwrap().name_any(), "beta");
        let old = tenant("acme", "2026-11-01T00:00:00Z", ["acme", "acme-mcp"]);
        writers.tenants.put(old.clone());
        assert_eq!(cache.older_claim(&new).unwrap().name_any(), "acme");
        assert!(cache.older_claim(&old).is_none());
        assert_eq!(cache.tenant_of_runtime("acme-mcp").unwrap().name_any(), "acme");
        assert!(cache.tenant_of_runtime("beta-mcp").is_none() && cache.tenant_of_runtime("beta").is_none());
    }
}
