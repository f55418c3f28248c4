//! Step two: from an `MCPTenant` and what was read to a tenant that may have its namespaces. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::{AdoptionPolicy, Client, DeletionPolicy, PodSecurity};

use super::dereference::{Facts, Found};
use crate::controllers::error::ReconcileError;
use crate::kubernetes::labels;

/// A tenant whose claims hold.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The namespace that it may edit.
    pub namespace: String,
    /// The namespace of gateway and servers.
    pub runtime_namespace: String,
    /// Pod Security Standard of the runtime namespace.
    pub pod_security: PodSecurity,
    /// `ResourceQuota` of the runtime namespace.
    pub runtime_quota: BTreeMap<String, Quantity>,
    /// `ResourceQuota` of the tenant's namespace: counts of our kinds.
    pub quota: BTreeMap<String, Quantity>,
    /// Who may open connections, beside the tenant's namespace.
    pub clients: Vec<Client>,
    /// Every call is refused.
    pub suspended: bool,
}

/// Why a tenant may not have what it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For the condition.
    pub reason: ConditionReason,
    /// What to do.
    pub message: String,
}

/// The annotation of a tenant namespace that the operator made: the tenant's UID.
pub(crate) const CREATED_FOR: &str = "mcp-fleet.dev/created-for";

/// Checks the claims.
pub(crate) fn validate(object: &MCPTenant, facts: &Facts) -> Result<Result<Tenant, Refusal>, ReconcileError> {
    let name = object.metadata.name.clone().ok_or(ReconcileError::Incomplete("metadata.name"))?;
    let uid = object.metadata.uid.clone().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    let namespace = object.spec.namespace.name.clone();
    let runtime_namespace = object.runtime_namespace();
    let refuse = |reason, message| Ok(Err(Refusal { reason, message }));

    if let Some(older) = &facts.older_claim {
        let message = format!(
            "the older MCPTenant {older} claims {namespace} or {runtime_namespace}; choose other namespaces for this one"
        );
        return refuse(ConditionReason::Conflicted, message);
    }
    if namespace == facts.operator_namespace || runtime_namespace == facts.operator_namespace {
        let message = format!("{} is the operator's own namespace; choose another", facts.operator_namespace);
        return refuse(ConditionReason::NamespaceNotAdoptable, message);
    }
    if let Found::There { labels, terminating, .. } = &facts.runtime_namespace {
        let ours = labels.get(labels::TENANT_UID) == Some(&uid);
        if !ours || *terminating {
            let message = if *terminating {
                format!("the namespace {runtime_namespace} is being deleted; it is made anew when it is gone")
            } else {
                format!(
                    "the namespace {runtime_namespace} exists and was not made for this tenant; runtime namespaces are \
                     never adopted: delete it, or set spec.runtimeNamespace on a new tenant"
                )
            };
            return refuse(ConditionReason::NamespaceNotAdoptable, message);
        }
    }
    if let Found::There { labels, annotations, terminating } = &facts.tenant_namespace {
        if *terminating {
            let message = format!("the namespace {namespace} is being deleted; it is made anew when it is gone");
            return refuse(ConditionReason::NamespaceNotAdoptable, message);
        }
        let ours = annotations.get(CREATED_FOR) == Some(&uid);
        let labelled = labels.get(labels::TENANT) == Some(&name);
        let adoptable = object.spec.namespace.adoption_policy == AdoptionPolicy::Labelled;
        if !labelled || !(ours || adoptable) {
            let message = if adoptable {
                format!(
                    "the namespace {namespace} exists; to let this tenant adopt it: kubectl label namespace \
                     {namespace} {}={name}",
                    labels::TENANT
                )
            } else {
                format!("the namespace {namespace} exists, and spec.namespace.adoptionPolicy is Never")
            };
            return refuse(ConditionReason::NamespaceNotAdoptable, message);
        }
    }
    Ok(Ok(Tenant::claimed(object)?))
}

impl Tenant {
    /// What the object says, whether its claims hold or not.
    pub(super) fn claimed(object: &MCPTenant) -> Result<Self, ReconcileError> {
        let (quota, runtime_quota) = object.spec.hard.clone().into_iter().partition(|(name, _)| counts_our_kinds(name));
        Ok(Self {
            name: object.metadata.name.clone().ok_or(ReconcileError::Incomplete("metadata.name"))?,
            uid: object.metadata.uid.clone().ok_or(ReconcileError::Incomplete("metadata.uid"))?,
            namespace: object.spec.namespace.name.clone(),
            runtime_namespace: object.runtime_namespace(),
            pod_security: object.spec.pod_security,
            runtime_quota,
            quota,
            clients: object.spec.clients.clone(),
            suspended: object.spec.suspend,
        })
    }
}

/// Whether the tenant's namespace goes with the tenant: only one that the operator made.
pub(crate) fn deletes_namespace(object: &MCPTenant, found: &Found) -> bool {
    object.spec.namespace.deletion_policy == DeletionPolicy::Delete
        && matches!(found, Found::There { annotations, .. }
            if annotations.get(CREATED_FOR).is_some_and(|uid| Some(uid) == object.metadata.uid.as_ref()))
}

fn counts_our_kinds(name: &str) -> bool {
    name.starts_with("count/") && name.ends_with(".mcp-fleet.dev")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::tenant::tests::{facts, tenant};
    use crate::kubernetes::labels::Labels;

    fn there(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Found {
        let map = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Found::There { labels: map(labels), annotations: map(annotations), terminating: false }
    }

    fn refusal(facts: &Facts) -> Option<ConditionReason> {
        validate(&tenant(), facts).unwrap().err().map(|refusal| refusal.reason)
    }

    #[test]
    fn namespaces_that_do_not_exist_are_made() {
        let checked = validate(&tenant(), &facts()).unwrap().unwrap();
        assert_eq!(checked.namespace, "acme");
        assert_eq!(checked.runtime_namespace, "acme-mcp");
    }

    #[test]
    fn a_namespace_is_adopted_only_by_its_label() {
        let mut facts = facts();
        facts.tenant_namespace = there(&[], &[]);
        assert_eq!(refusal(&facts), Some(ConditionReason::NamespaceNotAdoptable));
        facts.tenant_namespace = there(&[(labels::TENANT, "beta")], &[]);
        assert_eq!(refusal(&facts), Some(ConditionReason::NamespaceNotAdoptable));
        facts.tenant_namespace = there(&[(labels::TENANT, "acme")], &[]);
        assert_eq!(refusal(&facts), None);
    }

    #[test]
    fn adoption_can_be_ruled_out() {
        let mut facts = facts();
        facts.tenant_namespace = there(&[(labels::TENANT, "acme")], &[]);
        let mut object = tenant();
        object.spec.namespace.adoption_policy = AdoptionPolicy::Never;
        assert!(validate(&object, &facts).unwrap().is_err());
        facts.tenant_namespace = there(&[(labels::TENANT, "acme")], &[(CREATED_FOR, "u-1")]);
        assert!(validate(&object, &facts).unwrap().is_ok());
    }

    #[test]
    fn a_runtime_namespace_is_never_adopted() {
        let mut facts = facts();
        facts.runtime_namespace = there(&[(labels::TENANT, "acme")], &[]);
        assert_eq!(refusal(&facts), Some(ConditionReason::NamespaceNotAdoptable));
        facts.runtime_namespace = there(&[(labels::TENANT_UID, "u-1")], &[]);
        assert_eq!(refusal(&facts), None);
    }

    #[test]
    fn the_newer_of_two_claims_is_in_conflict() {
        let facts = Facts { older_claim: Some("beta".into()), ..facts() };
        assert_eq!(refusal(&facts), Some(ConditionReason::Conflicted));
    }

    #[test]
    fn the_operators_namespace_cannot_be_claimed() {
        let mut object = tenant();
        object.spec.namespace.name = "mcp-fleet-system".into();
        assert!(validate(&object, &facts()).unwrap().is_err());
    }

    #[test]
    fn counts_of_our_kinds_hold_for_the_tenants_namespace() {
        let checked = validate(&tenant(), &facts()).unwrap().unwrap();
        assert_eq!(checked.quota.keys().collect::<Vec<_>>(), ["count/mcpservers.mcp-fleet.dev"]);
        assert_eq!(checked.runtime_quota.keys().collect::<Vec<_>>(), ["pods"]);
    }

    #[test]
    fn an_adopted_namespace_is_never_deleted() {
        let mut object = tenant();
        object.spec.namespace.deletion_policy = DeletionPolicy::Delete;
        assert!(!deletes_namespace(&object, &there(&[(labels::TENANT, "acme")], &[])));
        assert!(deletes_namespace(&object, &there(&[(labels::TENANT, "acme")], &[(CREATED_FOR, "u-1")])));
        object.spec.namespace.deletion_policy = DeletionPolicy::Retain;
        assert!(!deletes_namespace(&object, &there(&[], &[(CREATED_FOR, "u-1")])));
    }
}
