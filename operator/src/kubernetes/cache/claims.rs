//! Which tenant may have a namespace that several claim. Pure.

use std::sync::Arc;

use mcp_fleet_crds::MCPTenant;

/// Returns an older tenant that claims one of the namespaces of this one. Age is decided by creation time and then by UID,
/// so that every replica sees the same order.
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

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;

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
}
