//! Gathers the inputs of a policy from the cache.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::names::CLEAR_BREAKERS;
use mcp_fleet_policy::model::VerificationKey;

use super::restore::restored_from;
use crate::config::gateway_origin;
use crate::context::Context;
use crate::kubernetes::cache::{Entry, GuardedKind, Objects, Unreadable};
use crate::kubernetes::labels;
use crate::policy::compile::{TenantInputs, UnreadableInputs};

/// Gathers the inputs of a tenant's policy; none until its keys have been loaded.
///
/// The inputs contain no objects while the tenant does not own its namespace.
pub(super) fn gather(ctx: &Context, tenant: &Entry<MCPTenant>) -> Option<TenantInputs> {
    let unreadable_tenant = match tenant {
        Entry::Readable(_) => None,
        Entry::Unreadable(unreadable) => Some(Arc::clone(unreadable)),
    };
    let tenant = tenant.object()?;
    let uid = tenant.uid()?;
    let keys = ctx.keys.cached(&uid)?;
    let cache = &ctx.cache;
    let namespace = &tenant.spec.namespace.name;
    let owns_namespace = cache.tenant_of_namespace(namespace).is_some_and(|owner| owner.uid().as_ref() == Some(&uid));
    let (servers, unreadable_servers) = in_namespace(&cache.objects.servers, namespace, owns_namespace);
    let (scopes, unreadable_scopes) = in_namespace(&cache.objects.scopes, namespace, owns_namespace);
    let (principals, unreadable_principals) = in_namespace(&cache.objects.principals, namespace, owns_namespace);
    let (budgets, unreadable_budgets) = in_namespace(&cache.objects.budgets, namespace, owns_namespace);
    let unreadable_uids = unreadable_principals.iter().filter_map(|principal| principal.uid());
    let principal_uids = principals.iter().filter_map(|principal| principal.uid()).chain(unreadable_uids);
    let revocations = principal_uids.filter_map(|uid| ctx.revocations.get(&uid).map(|until| (uid, until))).collect();
    Some(TenantInputs {
        servers,
        scopes,
        principals,
        budgets,
        unreadable: UnreadableInputs {
            tenant: unreadable_tenant,
            servers: unreadable_servers,
            scopes: unreadable_scopes,
            principals: unreadable_principals,
            budgets: unreadable_budgets,
        },
        upstreams: upstreams(&cache.services.in_namespace(&tenant.runtime_namespace()), &uid),
        keys: vec![VerificationKey { kid: keys.kid.clone(), point: keys.point.clone() }],
        session_key: keys.session.to_vec(),
        audience: gateway_origin(&tenant.runtime_namespace()),
        issuer: ctx.config.issuer(&uid),
        revocations,
        now: Timestamp::now().as_second(),
        tenant,
    })
}

/// Returns the objects of one kind in a namespace: those that can be read, and the others.
fn in_namespace<K: GuardedKind>(
    objects: &Objects<K>,
    namespace: &str,
    owns_namespace: bool,
) -> (Vec<Arc<K>>, Vec<Arc<Unreadable<K>>>) {
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    if owns_namespace {
        for entry in objects.in_namespace(namespace) {
            match entry {
                Entry::Readable(object) => readable.push(object),
                Entry::Unreadable(object) => unreadable.push(object),
            }
        }
    }
    (readable, unreadable)
}

/// Returns the addresses of the shims of a tenant's servers, by UID of the server, from the Services in its runtime
/// namespace.
fn upstreams(services: &[Arc<Service>], tenant_uid: &str) -> BTreeMap<String, SocketAddr> {
    let is_upstream =
        |service: &&Arc<Service>| service.labels().get(labels::TENANT_UID).is_some_and(|uid| uid == tenant_uid);
    let address = |service: &Arc<Service>| {
        let spec = service.spec.as_ref()?;
        let ip: IpAddr = spec.cluster_ip.as_deref()?.parse().ok()?;
        let port = u16::try_from(spec.ports.as_ref()?.first()?.port).ok()?;
        Some((service.labels().get(labels::SERVER_UID)?.clone(), SocketAddr::new(ip, port)))
    };
    services.iter().filter(is_upstream).filter_map(address).collect()
}

/// Computes a hash that changes whenever the inputs could compile to another policy, except when a revocation becomes
/// due.
pub(super) fn fingerprint(inputs: &TenantInputs) -> u64 {
    fn hash_objects<K: ResourceExt>(objects: &[Arc<K>], hasher: &mut DefaultHasher) {
        let mut versions: Vec<_> = objects
            .iter()
            .map(|object| {
                let metadata = object.meta();
                // An annotation does not count as a new generation.
                let cleared = object.annotations().get(CLEAR_BREAKERS);
                (object.uid(), metadata.generation, metadata.deletion_timestamp.is_some(), cleared)
            })
            .collect();
        versions.sort_unstable();
        versions.hash(hasher);
    }
    let mut hasher = DefaultHasher::new();
    hash_objects(std::slice::from_ref(&inputs.tenant), &mut hasher);
    hash_objects(&inputs.servers, &mut hasher);
    hash_objects(&inputs.scopes, &mut hasher);
    hash_objects(&inputs.principals, &mut hasher);
    hash_objects(&inputs.budgets, &mut hasher);
    let UnreadableInputs { tenant, servers, scopes, principals, budgets } = &inputs.unreadable;
    tenant.is_some().hash(&mut hasher);
    hash_objects(servers, &mut hasher);
    hash_objects(scopes, &mut hasher);
    hash_objects(principals, &mut hasher);
    hash_objects(budgets, &mut hasher);
    restored_from(&inputs.tenant).hash(&mut hasher);
    inputs.upstreams.hash(&mut hasher);
    inputs.revocations.hash(&mut hasher);
    inputs.keys.iter().for_each(|key| (&key.kid, &key.point).hash(&mut hasher));
    (&inputs.session_key, &inputs.audience, &inputs.issuer).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(tenant: &str, ip: &str) -> Arc<Service> {
        let value = serde_json::json!({
            "metadata": {"name": "mcp-files", "namespace": "acme-mcp",
                "labels": {"mcp-fleet.dev/tenant-uid": tenant, "mcp-fleet.dev/server-uid": "s-1"}},
            "spec": {"clusterIP": ip, "ports": [{"port": 8443}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn only_services_of_the_tenant_that_have_an_address_are_upstreams() {
        let found = |service: Arc<Service>| upstreams(&[service], "t-1").len();
        assert_eq!(found(service("t-1", "10.96.0.7")), 1);
        assert_eq!(found(service("t-2", "10.96.0.7")), 0);
        assert_eq!(found(service("t-1", "None")), 0);
    }

    #[test]
    fn an_annotation_that_clears_breakers_changes_the_fingerprint() {
        let mut inputs = crate::policy::compile::tests::inputs();
        let mut with = |key: &str, value: &str| {
            let principal = Arc::make_mut(&mut inputs.principals[0]);
            principal.metadata.annotations = Some([(key.to_owned(), value.to_owned())].into());
            fingerprint(&inputs)
        };
        let first = with(CLEAR_BREAKERS, "2026-11-22T12:00:00Z");
        assert_eq!(with(CLEAR_BREAKERS, "2026-11-22T12:00:00Z"), first);
        assert_ne!(with(CLEAR_BREAKERS, "2026-11-22T12:00:01Z"), first);
        assert_eq!(with("note", "a"), with("note", "b"), "no other annotation is part of a policy");
    }
}
