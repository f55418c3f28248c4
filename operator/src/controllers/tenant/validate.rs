//! Step two: turns an `MCPTenant` and the inputs into a tenant whose claims hold, or rejects it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mcp_fleet_core::labels;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::names::CREATED_FOR;
use mcp_fleet_crds::pod::PodSettings;
use mcp_fleet_crds::tenant::{AdoptionPolicy, Client, DEFAULT_COUNTS, DeletionPolicy, GatewayResources, PodSecurity};
use mcp_fleet_crds::{MCPTenant, MCPTenantSpec};

use super::dereference::{Found, Inputs};
use crate::controllers::identity::ObjectId;
use crate::controllers::outcome::{Rejection, Until};

/// A tenant whose claims hold.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub id: ObjectId,
    /// The namespace that the tenant's people may edit.
    pub namespace: String,
    /// The namespace of its gateway and servers.
    pub runtime_namespace: String,
    /// Pod Security Standard of the runtime namespace.
    pub pod_security: PodSecurity,
    /// `ResourceQuota` of the runtime namespace.
    pub runtime_quota: BTreeMap<String, Quantity>,
    /// `ResourceQuota` of the tenant's namespace: counts of our kinds, each with its default.
    pub quota: BTreeMap<String, Quantity>,
    /// Who may open connections to the gateway, besides pods of the tenant's namespace.
    pub clients: Vec<Client>,
    /// Number of gateway pods.
    pub gateway_replicas: u32,
    /// Compute resources of a gateway pod.
    pub gateway_resources: GatewayResources,
    /// Where gateway pods run, and what marks them.
    pub gateway_pod: Box<PodSettings>,
    /// Whether every call is refused.
    pub suspended: bool,
    /// The spec with its defaults, as YAML.
    pub ceilings: String,
}

/// Checks whether the tenant may have the namespaces that it claims.
pub(crate) fn validate(object: &MCPTenant, inputs: &Inputs) -> Result<Tenant, Rejection> {
    let tenant = Tenant::new(object, inputs.id.clone());
    let (namespace, runtime_namespace) = (&tenant.namespace, &tenant.runtime_namespace);
    if let Some(older) = &inputs.older_claim {
        let message = format!(
            "the older MCPTenant {older} claims {namespace} or {runtime_namespace}; choose other namespaces for this one"
        );
        return Err(reject(ConditionReason::Conflicted, message));
    }
    if [namespace, runtime_namespace].contains(&&inputs.operator_namespace) {
        let message = format!("{} is the operator's own namespace; choose another", inputs.operator_namespace);
        return Err(reject(ConditionReason::NamespaceNotAdoptable, message));
    }
    check_runtime_namespace(&tenant, &inputs.runtime_namespace)?;
    check_tenant_namespace(&tenant, object.spec.namespace.adoption_policy, &inputs.tenant_namespace)?;
    Ok(tenant)
}

/// A runtime namespace is never adopted: it has to be the one that was made for this tenant.
fn check_runtime_namespace(tenant: &Tenant, found: &Found) -> Result<(), Rejection> {
    let Found::There { labels, terminating, .. } = found else { return Ok(()) };
    let namespace = &tenant.runtime_namespace;
    let message = if *terminating {
        being_deleted(namespace)
    } else if labels.get(labels::TENANT_UID) == Some(&tenant.id.uid) {
        return Ok(());
    } else {
        format!(
            "the namespace {namespace} exists and was not made for this tenant; runtime namespaces are never adopted: \
             delete it, or set spec.runtimeNamespace on a new tenant"
        )
    };
    Err(reject(ConditionReason::NamespaceNotAdoptable, message))
}

/// A namespace that the operator did not make for this tenant is adopted only by its label, and only if the tenant allows
/// adoption.
fn check_tenant_namespace(tenant: &Tenant, policy: AdoptionPolicy, found: &Found) -> Result<(), Rejection> {
    let Found::There { labels, annotations, terminating, .. } = found else { return Ok(()) };
    let (namespace, ObjectId { name, uid }) = (&tenant.namespace, &tenant.id);
    let ours = annotations.get(CREATED_FOR) == Some(uid);
    let labelled = labels.get(labels::TENANT) == Some(name);
    let adoptable = policy == AdoptionPolicy::Labelled;
    let message = if *terminating {
        being_deleted(namespace)
    } else if labelled && (ours || adoptable) {
        return Ok(());
    } else if adoptable {
        format!(
            "the namespace {namespace} exists; to let this tenant adopt it: kubectl label namespace {namespace} {}={name}",
            labels::TENANT
        )
    } else {
        format!("the namespace {namespace} exists, and spec.namespace.adoptionPolicy is Never")
    };
    Err(reject(ConditionReason::NamespaceNotAdoptable, message))
}

fn being_deleted(namespace: &str) -> String {
    format!("the namespace {namespace} is being deleted; it is created again when it is gone")
}

/// Namespaces without our labels are not watched, so a change of one does not trigger a reconcile.
fn reject(reason: ConditionReason, message: String) -> Rejection {
    Rejection { reason, message, until: Until::UnwatchedChanged }
}

impl Tenant {
    /// Reads a tenant from its object, whether its claims hold or not.
    pub(super) fn new(object: &MCPTenant, id: ObjectId) -> Self {
        let mut hard = object.spec.hard.clone();
        for (name, count) in DEFAULT_COUNTS {
            hard.entry(name.to_owned()).or_insert_with(|| Quantity(count.to_string()));
        }
        let runtime_namespace = object.runtime_namespace();
        let spec = MCPTenantSpec {
            hard: hard.clone(),
            runtime_namespace: Some(runtime_namespace.clone()),
            ..object.spec.clone()
        };
        let (quota, runtime_quota) = hard.into_iter().partition(|(name, _)| counts_our_kinds(name));
        Self {
            id,
            namespace: object.spec.namespace.name.clone(),
            runtime_namespace,
            pod_security: object.spec.pod_security,
            runtime_quota,
            quota,
            // One that the schema would refuse was admitted by an earlier version of it, and opens nothing.
            clients: object.spec.clients.iter().filter(|client| client.names_a_label()).cloned().collect(),
            gateway_replicas: object.spec.gateway.replicas,
            gateway_resources: object.spec.gateway.resources.clone(),
            gateway_pod: Box::new(object.spec.gateway.pod.clone()),
            suspended: object.spec.suspend,
            // Every value of the type can be written as YAML.
            ceilings: serde_yaml_ng::to_string(&spec).unwrap_or_default(),
        }
    }
}

/// Whether the tenant's namespace is deleted together with the tenant: only one that the operator made.
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
    use mcp_fleet_core::labels::Labels;

    use super::*;
    use crate::controllers::tenant::tests::{inputs, tenant};

    fn there(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Found {
        let map = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (labels, annotations) = (map(labels), map(annotations));
        Found::There { uid: "n-1".into(), labels, annotations, terminating: false }
    }

    fn rejection(inputs: &Inputs) -> Option<ConditionReason> {
        validate(&tenant(), inputs).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn namespaces_that_do_not_exist_are_made() {
        let checked = validate(&tenant(), &inputs()).unwrap();
        assert_eq!(checked.namespace, "acme");
        assert_eq!(checked.runtime_namespace, "acme-mcp");
    }

    #[test]
    fn a_namespace_is_adopted_only_by_its_label() {
        let mut inputs = inputs();
        inputs.tenant_namespace = there(&[], &[]);
        assert_eq!(rejection(&inputs), Some(ConditionReason::NamespaceNotAdoptable));
        inputs.tenant_namespace = there(&[(labels::TENANT, "beta")], &[]);
        assert_eq!(rejection(&inputs), Some(ConditionReason::NamespaceNotAdoptable));
        inputs.tenant_namespace = there(&[(labels::TENANT, "acme")], &[]);
        assert_eq!(rejection(&inputs), None);
    }

    #[test]
    fn adoption_can_be_ruled_out() {
        let mut inputs = inputs();
        inputs.tenant_namespace = there(&[(labels::TENANT, "acme")], &[]);
        let mut object = tenant();
        object.spec.namespace.adoption_policy = AdoptionPolicy::Never;
        assert!(validate(&object, &inputs).is_err());
        inputs.tenant_namespace = there(&[(labels::TENANT, "acme")], &[(CREATED_FOR, "u-1")]);
        assert!(validate(&object, &inputs).is_ok());
    }

    #[test]
    fn a_runtime_namespace_is_never_adopted() {
        let mut inputs = inputs();
        inputs.runtime_namespace = there(&[(labels::TENANT, "acme")], &[]);
        assert_eq!(rejection(&inputs), Some(ConditionReason::NamespaceNotAdoptable));
        inputs.runtime_namespace = there(&[(labels::TENANT_UID, "u-1")], &[]);
        assert_eq!(rejection(&inputs), None);
    }

    #[test]
    fn the_newer_of_two_claims_is_in_conflict() {
        let inputs = Inputs { older_claim: Some("beta".into()), ..inputs() };
        assert_eq!(rejection(&inputs), Some(ConditionReason::Conflicted));
    }

    #[test]
    fn the_operators_namespace_cannot_be_claimed() {
        let mut object = tenant();
        object.spec.namespace.name = "mcp-fleet-system".into();
        assert!(validate(&object, &inputs()).is_err());
    }

    #[test]
    fn counts_of_our_kinds_hold_for_the_tenants_namespace() {
        let checked = validate(&tenant(), &inputs()).unwrap();
        assert_eq!(checked.quota["count/mcpservers.mcp-fleet.dev"], Quantity("5".into()));
        let counts: Vec<_> = checked.quota.iter().map(|(name, count)| (name.as_str(), count.0.as_str())).collect();
        let expected = [("mcpbudgets", "256"), ("mcpprincipals", "5000"), ("mcpscopes", "2000"), ("mcpservers", "5")];
        let expected = expected.map(|(kind, count)| (format!("count/{kind}.mcp-fleet.dev"), count));
        assert!(counts.iter().copied().eq(expected.iter().map(|(kind, count)| (kind.as_str(), *count))), "{counts:?}");
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
