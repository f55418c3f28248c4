//! Gathers what a policy is made of from the stores.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_policy::model::VerificationKey;

use crate::config::gateway_origin;
use crate::context::Context;
use crate::kubernetes::labels;
use crate::policy::compile::TenantInputs;

/// Everything that the policy of a tenant is made of; none until its keys are at hand.
///
/// While its namespace is not its own, there is nothing in it.
pub(super) fn gather(ctx: &Context, tenant: &Arc<MCPTenant>) -> Option<TenantInputs> {
    let uid = tenant.uid()?;
    let keys = ctx.keys.cached(&uid)?;
    let cache = &ctx.cache;
    let namespace = &tenant.spec.namespace.name;
    let claimed = cache.tenant_of_namespace(namespace).is_some_and(|owner| owner.uid().as_ref() == Some(&uid));
    let principals = of(&cache.principals, namespace, claimed);
    let revocations = principals
        .iter()
        .filter_map(|principal| principal.uid())
        .filter_map(|uid| ctx.revocations.get(&uid).map(|until| (uid, until)))
        .collect();
    Some(TenantInputs {
        tenant: Arc::clone(tenant),
        servers: of(&cache.servers, namespace, claimed),
        scopes: of(&cache.scopes, namespace, claimed),
        principals,
        budgets: of(&cache.budgets, namespace, claimed),
        upstreams: upstreams(&cache.services.state(), &uid, &tenant.runtime_namespace()),
        keys: vec![VerificationKey { kid: keys.kid.clone(), point: keys.point.clone() }],
        session_key: keys.session.to_vec(),
        audience: gateway_origin(&tenant.runtime_namespace()),
        issuer: ctx.config.issuer(&uid),
        revocations,
        now: Timestamp::now().as_second(),
    })
}

fn of<K>(store: &Store<K>, namespace: &str, claimed: bool) -> Vec<Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    if !claimed {
        return Vec::new();
    }
    store.state().into_iter().filter(|object| object.namespace().as_deref() == Some(namespace)).collect()
}

/// Where the shims of a tenant's servers listen, by the server's UID.
fn upstreams(services: &[Arc<Service>], tenant_uid: &str, namespace: &str) -> BTreeMap<String, SocketAddr> {
    let ours = |service: &&Arc<Service>| {
        service.namespace().as_deref() == Some(namespace)
            && service.labels().get(labels::TENANT_UID).is_some_and(|uid| uid == tenant_uid)
    };
    let address = |service: &Arc<Service>| {
        let spec = service.spec.as_ref()?;
        let ip: IpAddr = spec.cluster_ip.as_deref()?.parse().ok()?;
        let port = u16::try_from(spec.ports.as_ref()?.first()?.port).ok()?;
        Some((service.labels().get(labels::SERVER_UID)?.clone(), SocketAddr::new(ip, port)))
    };
    services.iter().filter(ours).filter_map(address).collect()
}

/// Equal for inputs that compile to the same policy, as long as no revocation becomes due.
pub(super) fn fingerprint(inputs: &TenantInputs) -> u64 {
    fn all<K: ResourceExt>(objects: &[Arc<K>], hasher: &mut DefaultHasher) {
        let mut seen: Vec<_> = objects
            .iter()
            .map(|object| (object.uid(), object.meta().generation, object.meta().deletion_timestamp.is_some()))
            .collect();
        seen.sort_unstable();
        seen.hash(hasher);
    }
    let mut hasher = DefaultHasher::new();
    all(std::slice::from_ref(&inputs.tenant), &mut hasher);
    all(&inputs.servers, &mut hasher);
    all(&inputs.scopes, &mut hasher);
    all(&inputs.principals, &mut hasher);
    all(&inputs.budgets, &mut hasher);
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

    fn service(namespace: &str, tenant: &str, ip: &str) -> Arc<Service> {
        let value = serde_json::json!({
            "metadata": {"name": "mcp-files", "namespace": namespace,
                "labels": {"mcp-fleet.dev/tenant-uid": tenant, "mcp-fleet.dev/server-uid": "s-1"}},
            "spec": {"clusterIP": ip, "ports": [{"port": 8443}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn only_services_of_the_tenant_in_its_runtime_namespace_are_upstreams() {
        let found = |service: Arc<Service>| upstreams(&[service], "t-1", "acme-mcp").len();
        assert_eq!(found(service("acme-mcp", "t-1", "10.96.0.7")), 1);
        assert_eq!(found(service("acme", "t-1", "10.96.0.7")), 0);
        assert_eq!(found(service("acme-mcp", "t-2", "10.96.0.7")), 0);
        assert_eq!(found(service("acme-mcp", "t-1", "None")), 0);
    }
}
