//! Gathers the inputs of a policy from the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use mcp_fleet_core::guard::{GuardedKind, Unreadable};
use mcp_fleet_core::labels;
use mcp_fleet_core::policy::compile::{TenantInputs, UnreadableInputs};
use mcp_fleet_core::public_name::Names;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::names::{CLEAR_BREAKERS, TOP_UP};
use mcp_fleet_policy::model::{Uid, VerificationKey};

use super::restore::restored_from;
use crate::config::gateway_origin;
use crate::context::Context;
use crate::kubernetes::cache::{Entry, Objects};

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
    let wanted = tenant.spec.endpoint.hostname.as_deref();
    let is_free = wanted.is_some_and(|wanted| {
        cache.holder_of_hostname(&tenant, wanted).is_none() && ctx.shared_state.may_accept_name(&uid, wanted)
    });
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
        addresses: addresses(&cache.endpoints.in_namespace(&tenant.runtime_namespace()), &uid),
        keys: vec![VerificationKey { kid: keys.kid.clone(), point: keys.point.clone() }],
        session_key: keys.session.to_vec(),
        audience: gateway_origin(&tenant.runtime_namespace()),
        other_audiences: Names::of(&tenant).accepted(is_free),
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

/// Returns the addresses of the shims of a tenant's servers, by UID of the server, from the EndpointSlices in its runtime
/// namespace: those of the pods that are ready, or, if none of a server's is, of those that are not about to end. So a
/// policy does not change whenever the only pod of a server becomes ready or stops being ready.
fn addresses(slices: &[Arc<EndpointSlice>], tenant_uid: &str) -> BTreeMap<Uid, Vec<SocketAddr>> {
    let mut pods: BTreeMap<Uid, [BTreeSet<SocketAddr>; 2]> = BTreeMap::new();
    for slice in slices {
        let label = |name| slice.labels().get(name);
        let (Some(server), true) =
            (label(labels::SERVER_UID), label(labels::TENANT_UID).is_some_and(|it| it == tenant_uid))
        else {
            continue;
        };
        let port = slice.ports.iter().flatten().find_map(|port| u16::try_from(port.port?).ok());
        let Some(port) = port else { continue };
        let [ready, starting] = pods.entry(server.clone()).or_default();
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // Absent: unknown, which is to be taken for ready (EndpointConditions of discovery.k8s.io/v1).
            let is_ready = conditions.ready.unwrap_or(true);
            if !is_ready && conditions.terminating.unwrap_or(false) {
                continue;
            }
            let ips = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            let found = if is_ready { &mut *ready } else { &mut *starting };
            found.extend(ips.map(|ip| SocketAddr::new(ip, port)));
        }
    }
    let used = |[ready, starting]: [BTreeSet<_>; 2]| if ready.is_empty() { starting } else { ready };
    pods.into_iter().map(|(server, pods)| (server, used(pods).into_iter().collect())).collect()
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
                let annotated = [CLEAR_BREAKERS, TOP_UP].map(|name| object.annotations().get(name));
                (object.uid(), metadata.generation, metadata.deletion_timestamp.is_some(), annotated)
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
    inputs.addresses.hash(&mut hasher);
    inputs.revocations.hash(&mut hasher);
    inputs.keys.iter().for_each(|key| (&key.kid, &key.point).hash(&mut hasher));
    (&inputs.session_key, &inputs.audience, &inputs.other_audiences, &inputs.issuer).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Returns an EndpointSlice of the server `s-1` with these pods: address, ready, terminating.
    fn slice(tenant: &str, pods: &[(&str, Option<bool>, bool)]) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = pods
            .iter()
            .map(|(ip, ready, terminating)| {
                serde_json::json!({"addresses": [ip], "conditions": {"ready": ready, "terminating": terminating}})
            })
            .collect();
        let value = serde_json::json!({
            "metadata": {"name": "mcp-files-pods-x1", "namespace": "acme-mcp",
                "labels": {"mcp-fleet.dev/tenant-uid": tenant, "mcp-fleet.dev/server-uid": "s-1"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": 8443}], "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn found(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let addresses = addresses(slices, "t-1");
        assert!(addresses.keys().all(|server| server == "s-1"));
        addresses.values().flatten().map(ToString::to_string).collect()
    }

    #[test]
    fn the_addresses_of_a_server_are_those_of_its_ready_pods_in_all_slices() {
        let (one, two, three) = ("10.244.0.1", "10.244.0.2", "10.244.0.3");
        let both = [
            slice("t-1", &[(two, Some(true), false), (one, None, false), (three, Some(false), false)]),
            slice("t-1", &[(one, Some(true), false)]),
        ];
        assert_eq!(found(&both), ["10.244.0.1:8443", "10.244.0.2:8443"]);
        assert_eq!(found(&[slice("t-1", &[("fd00::7", Some(true), false)])]), ["[fd00::7]:8443"]);
        assert!(found(&[slice("t-2", &[(one, Some(true), false)])]).is_empty(), "another tenant's");
        assert!(found(&[slice("t-1", &[("pod.example", Some(true), false)])]).is_empty(), "a name");
        assert!(found(&[slice("t-1", &[])]).is_empty());
    }

    #[test]
    fn the_only_pod_keeps_its_address_while_it_is_not_ready_unless_it_ends() {
        let pod = |ready, terminating| found(&[slice("t-1", &[("10.244.0.1", Some(ready), terminating)])]);
        assert_eq!(pod(false, false), pod(true, false));
        assert!(pod(false, true).is_empty());
    }

    #[test]
    fn an_annotation_that_clears_breakers_changes_the_fingerprint() {
        let mut inputs = mcp_fleet_core::testing::inputs();
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

    #[test]
    fn another_name_changes_the_fingerprint() {
        let mut inputs = mcp_fleet_core::testing::inputs();
        let before = fingerprint(&inputs);
        inputs.other_audiences.push("https://mcp.example.com".into());
        assert_ne!(fingerprint(&inputs), before);
    }

    #[test]
    fn a_top_up_changes_the_fingerprint() {
        let mut inputs = mcp_fleet_core::testing::inputs();
        let before = fingerprint(&inputs);
        let budget = Arc::make_mut(&mut inputs.budgets[0]);
        budget.metadata.annotations = Some([(TOP_UP.to_owned(), "2026-11-26T09:30:00Z amount=1".to_owned())].into());
        assert_ne!(fingerprint(&inputs), before);
    }
}
