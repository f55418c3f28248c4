//! The labels by which our objects are known: what made them, and for whom, by name and by UID. Owner references
//! cannot cross namespaces, so the UID labels stand in for them.

use std::collections::BTreeMap;

/// The tenant's name.
pub(crate) const TENANT: &str = "mcp-fleet.dev/tenant";
/// The tenant's UID.
pub(crate) const TENANT_UID: &str = "mcp-fleet.dev/tenant-uid";
/// The server's name.
pub(crate) const SERVER: &str = "mcp-fleet.dev/server";
/// The server's UID.
pub(crate) const SERVER_UID: &str = "mcp-fleet.dev/server-uid";
/// The principal's name.
pub(crate) const PRINCIPAL: &str = "mcp-fleet.dev/principal";
/// The principal's UID.
pub(crate) const PRINCIPAL_UID: &str = "mcp-fleet.dev/principal-uid";
/// What an object is for: `gateway`, `server`, `operator`, …
pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";
/// Selects everything that we made.
pub(crate) const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=mcp-fleet";

/// The finalizer of the objects whose children live in other namespaces.
pub(crate) const FINALIZER: &str = "mcp-fleet.dev/teardown";

/// A set of labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// What every object of ours carries.
pub(crate) fn common(component: &str) -> Labels {
    [("app.kubernetes.io/name", "mcp-fleet"), (COMPONENT, component), ("app.kubernetes.io/managed-by", "mcp-fleet")]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// What selects our pods of one component, within a namespace.
pub(crate) fn selector(component: &str) -> Labels {
    let mut labels = common(component);
    labels.remove("app.kubernetes.io/managed-by");
    labels
}

/// What an object made for a tenant carries.
pub(crate) fn of_tenant(component: &str, tenant: &str, tenant_uid: &str) -> Labels {
    let mut labels = common(component);
    labels.insert(TENANT.into(), tenant.into());
    labels.insert(TENANT_UID.into(), tenant_uid.into());
    labels
}

/// Whether `found` names the same owners, by UID, as `want` does.
pub(crate) fn same_owner(found: Option<&Labels>, want: &Labels) -> bool {
    [TENANT_UID, SERVER_UID, PRINCIPAL_UID]
        .into_iter()
        .all(|key| found.and_then(|labels| labels.get(key)) == want.get(key))
        && (want.contains_key(TENANT_UID) || want.contains_key(SERVER_UID) || want.contains_key(PRINCIPAL_UID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_a_tenant_of_the_same_name_but_another_uid_is_not_ours() {
        let want = of_tenant("gateway", "acme", "u-2");
        assert!(same_owner(Some(&want), &want));
        assert!(!same_owner(Some(&of_tenant("gateway", "acme", "u-1")), &want));
        assert!(!same_owner(None, &want));
    }

    #[test]
    fn labels_without_any_uid_own_nothing() {
        assert!(!same_owner(Some(&common("gateway")), &common("gateway")));
    }
}
