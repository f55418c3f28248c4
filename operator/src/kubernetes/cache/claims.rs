//! Which tenant may have a namespace or a host name that several claim. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use mcp_fleet_core::public_name::Names;
use mcp_fleet_crds::MCPTenant;

/// Returns creation time and UID of a tenant.
fn age(tenant: &MCPTenant) -> (Option<Timestamp>, Option<String>) {
    (tenant.metadata.creation_timestamp.as_ref().map(|time| time.0), tenant.metadata.uid.clone())
}

/// Returns an older tenant that claims one of the namespaces of this one. Age is decided by creation time and then by UID,
/// so that every replica sees the same order.
pub(crate) fn older_claim(tenant: &MCPTenant, all: &[Arc<MCPTenant>]) -> Option<Arc<MCPTenant>> {
    let claims = |tenant: &MCPTenant| [tenant.spec.namespace.name.clone(), tenant.runtime_namespace()];
    let ours = claims(tenant);
    all.iter()
        .filter(|other| other.metadata.uid != tenant.metadata.uid && age(other) < age(tenant))
        .find(|other| claims(other).iter().any(|namespace| ours.contains(namespace)))
        .cloned()
}

/// Returns another tenant that has a host name: one that uses it or did while tokens for it may be valid, or one that is
/// older and wants it.
pub(crate) fn holder_of_hostname(tenant: &MCPTenant, hostname: &str, all: &[Arc<MCPTenant>]) -> Option<Arc<MCPTenant>> {
    let has = |other: &MCPTenant| {
        let names = Names::of(other);
        names.holds(hostname) || names.wanted == Some(hostname) && age(other) < age(tenant)
    };
    all.iter().find(|other| other.metadata.uid != tenant.metadata.uid && has(other)).cloned()
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::json;

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
    fn claims_of_the_same_second_are_ordered_by_uid() {
        let one = tenant("acme", "shared", "u-1", "2026-11-01T00:00:00Z");
        let two = tenant("beta", "shared", "u-2", "2026-11-01T00:00:00Z");
        let all = [one.clone(), two.clone()];
        assert!(older_claim(&two, &all).is_some() && older_claim(&one, &all).is_none());
    }

    /// Returns a tenant that wants a host name, uses one, and did use one.
    fn named(uid: &str, created: &str, [wanted, in_use, former]: [&str; 3]) -> Arc<MCPTenant> {
        let mut found = (*tenant(uid, uid, uid, created)).clone();
        let present = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        found.spec.endpoint.hostname = present(wanted);
        let former = present(former).map(|name| json!({"url": format!("https://{name}"), "acceptedUntil": created}));
        let status = json!({"publicName": present(in_use), "formerUrls": former.into_iter().collect::<Vec<_>>()});
        found.status = serde_json::from_value(status).unwrap();
        Arc::new(found)
    }

    #[test]
    fn a_host_name_belongs_to_who_uses_it_and_otherwise_to_the_older_of_those_who_want_it() {
        let (name, first, second) = ("mcp.example.com", "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z");
        let old = named("u-1", first, [name, "", ""]);
        let holder = |tenant: &MCPTenant, other: &Arc<MCPTenant>| {
            holder_of_hostname(tenant, name, &[Arc::new(tenant.clone()), Arc::clone(other)]).is_some()
        };
        let new = named("u-2", second, [name, "", ""]);
        assert!(holder(&new, &old) && !holder(&old, &new));
        for holding in [named("u-2", second, ["", name, ""]), named("u-2", second, ["other.example.com", "", name])] {
            assert!(holder(&old, &holding) && !holder(&holding, &named("u-1", first, ["", "", ""])));
        }
    }
}
