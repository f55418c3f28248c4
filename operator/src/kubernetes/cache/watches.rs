//! Starts the watches that fill the cache.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, future};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Client;
use kube::runtime::watcher;
use tokio::sync::broadcast;

use super::index::{index, index_quotas, index_workloads};
use super::owned::Owned;
use super::store::{guarded_store, table};
use super::{AllObjects, Cache, Change};
use crate::kubernetes::labels;

/// Objects that are listed at a time: a page of large ones has to fit into memory.
const PAGE_SIZE: u32 = 50;
/// Changes by which a subscriber may lag before it has to check everything.
const CHANGE_BACKLOG: usize = 4096;

/// Returns an empty cache, and the future that fills it and keeps it current. The future never ends.
pub(crate) fn start(client: &Client) -> (Cache, BoxFuture<'static, ()>) {
    let changes = broadcast::channel(CHANGE_BACKLOG).0;
    let all = || watcher::Config::default().page_size(PAGE_SIZE);
    let labelled = |selector: &str| all().labels(selector);

    let (tenants, watch_tenants) = guarded_store(client, &changes, all(), |it| Change::Tenant(it.name));
    let (servers, watch_servers) = guarded_store(client, &changes, all(), |it| Change::Server(it.namespace, it.name));
    let (scopes, watch_scopes) = guarded_store(client, &changes, all(), |it| Change::Scope(it.namespace, it.name));
    let (principals, watch_principals) =
        guarded_store(client, &changes, all(), |it| Change::Principal(it.namespace, it.name));
    let (budgets, watch_budgets) = guarded_store(client, &changes, all(), |it| Change::Budget(it.namespace, it.name));
    let (services, watch_services) =
        table(client, &changes, labelled(labels::SERVER_UID), |it| Change::Service(Arc::new(it.labels)));
    let (namespaces, watch_namespaces) =
        table(client, &changes, labelled(labels::TENANT), |it| Change::Namespace(it.name));

    let owned = Arc::new(Owned::default());
    let managed = || labelled(labels::MANAGED_SELECTOR);
    let watch_owned = future::join_all([
        index_workloads::<Deployment>(client, &owned, &changes, managed()),
        index_workloads::<StatefulSet>(client, &owned, &changes, managed()),
        index::<Service>(client, &owned, &changes, managed()),
        index::<ServiceAccount>(client, &owned, &changes, managed()),
        index::<NetworkPolicy>(client, &owned, &changes, managed()),
        index_quotas(client, &owned, &changes, managed()),
        index::<LimitRange>(client, &owned, &changes, managed()),
        index::<PodDisruptionBudget>(client, &owned, &changes, managed()),
        index::<Role>(client, &owned, &changes, managed()),
        index::<RoleBinding>(client, &owned, &changes, managed()),
        index::<Namespace>(client, &owned, &changes, managed()),
    ]);

    let objects = AllObjects { tenants, servers, scopes, principals, budgets };
    let cache = Cache::new(objects, services, namespaces, owned, changes);
    let watches = future::join_all([
        watch_tenants,
        watch_servers,
        watch_scopes,
        watch_principals,
        watch_budgets,
        watch_services,
        watch_namespaces,
        watch_owned.map(|_| ()).boxed(),
    ]);
    (cache, watches.map(|_| ()).boxed())
}
