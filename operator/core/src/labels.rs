//! Labels of the objects that the operator makes. They name the owner by name and by UID, because owner references cannot
//! cross namespaces.

use std::collections::BTreeMap;

/// Name of the tenant.
pub const TENANT: &str = "mcp-fleet.dev/tenant";
/// UID of the tenant.
pub const TENANT_UID: &str = "mcp-fleet.dev/tenant-uid";
/// Name of the server.
pub const SERVER: &str = "mcp-fleet.dev/server";
/// UID of the server.
pub const SERVER_UID: &str = "mcp-fleet.dev/server-uid";
/// Name of the principal.
pub const PRINCIPAL: &str = "mcp-fleet.dev/principal";
/// UID of the principal.
pub const PRINCIPAL_UID: &str = "mcp-fleet.dev/principal-uid";
/// When the server of a retained volume claim was deleted, as `20261122T120000Z`.
pub const RETAINED_SINCE: &str = "mcp-fleet.dev/retained-since";
/// Purpose of an object: `gateway`, `server`, `access`, …
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Selector of every object that the operator made.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=mcp-fleet";

/// Component of a Secret with the last report of a server.
pub const SERVER_REPORT: &str = "server-report";
/// Annotation of such a Secret: BLAKE3 of the report, uncompressed, in hexadecimal digits.
pub const REPORT_DIGEST: &str = "mcp-fleet.dev/report-digest";

/// Annotation of a tenant: the UID that it had in the cluster that it was restored from.
pub const RESTORED_FROM: &str = "mcp-fleet.dev/restored-from";

/// Finalizer of objects that the operator tears down.
pub const FINALIZER: &str = "mcp-fleet.dev/teardown";

/// A set of labels.
pub type Labels = BTreeMap<String, String>;

/// The labels of an object that tell whose it is and what for, without those of others. The cache holds them for each object
/// that the operator made, so they take little memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerLabels(Box<[(&'static str, Box<str>)]>);

impl OwnerLabels {
    const ALL: [&str; 7] = [COMPONENT, TENANT, TENANT_UID, SERVER, SERVER_UID, PRINCIPAL, PRINCIPAL_UID];

    /// Returns the value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

impl From<&Labels> for OwnerLabels {
    fn from(labels: &Labels) -> Self {
        let all = Self::ALL.iter();
        Self(all.filter_map(|name| Some((*name, labels.get(*name)?.as_str().into()))).collect())
    }
}

/// Returns the labels of every object that the operator makes.
pub fn common(component: &str) -> Labels {
    [("app.kubernetes.io/name", "mcp-fleet"), (COMPONENT, component), ("app.kubernetes.io/managed-by", "mcp-fleet")]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Returns the labels that select the pods of a component within a namespace.
pub fn selector(component: &str) -> Labels {
    let mut labels = common(component);
    labels.remove("app.kubernetes.io/managed-by");
    labels
}

/// Returns the labels of an object that is made for a tenant.
pub fn of_tenant(component: &str, tenant: &str, tenant_uid: &str) -> Labels {
    let mut labels = common(component);
    labels.insert(TENANT.into(), tenant.into());
    labels.insert(TENANT_UID.into(), tenant_uid.into());
    labels
}

/// Whether these are labels of an object that the operator made.
pub fn are_ours(labels: &Labels) -> bool {
    let (key, value) = MANAGED_SELECTOR.split_once('=').unwrap_or_default();
    labels.get(key).is_some_and(|found| found == value)
}

/// Whether the labels `found` name the same owners by UID as `wanted`.
pub fn same_owner(found: Option<&Labels>, wanted: &Labels) -> bool {
    [TENANT_UID, SERVER_UID, PRINCIPAL_UID]
        .into_iter()
        .all(|key| found.and_then(|labels| labels.get(key)) == wanted.get(key))
        && (wanted.contains_key(TENANT_UID) || wanted.contains_key(SERVER_UID) || wanted.contains_key(PRINCIPAL_UID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_a_former_tenant_of_the_same_name_is_not_ours() {
        let want = of_tenant("gateway", "acme", "u-2");
        assert!(same_owner(Some(&want), &want));
        assert!(!same_owner(Some(&of_tenant("gateway", "acme", "u-1")), &want));
        assert!(!same_owner(None, &want));
    }

    #[test]
    fn owner_labels_are_those_that_the_operator_reads() {
        let mut labels = of_tenant("gateway", "acme", "u-1");
        labels.insert("team".into(), "acme".into());
        let owner = OwnerLabels::from(&labels);
        let found = ["team", COMPONENT, TENANT, TENANT_UID, SERVER_UID].map(|name| owner.get(name));
        assert_eq!(found, [None, Some("gateway"), Some("acme"), Some("u-1"), None]);
        labels.remove("team");
        assert_eq!(OwnerLabels::from(&labels), owner);
    }

    #[test]
    fn labels_without_a_uid_have_no_owner() {
        assert!(!same_owner(Some(&common("gateway")), &common("gateway")));
    }
}
