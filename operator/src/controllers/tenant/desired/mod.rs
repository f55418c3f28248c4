//! Step three: the objects that a tenant's namespaces hold. Pure.

pub(super) mod access;
mod ceilings;
mod gateway;
mod namespaces;
mod policies;

use mcp_fleet_core::credentials::ca::{LeafRequest, gateway_identity};
use mcp_fleet_core::labels;
use serde_json::{Value, json};

use super::validate::Tenant;
use crate::controllers::manifests::settings::Settings;
use crate::kubernetes::apply::Rendered;

pub(crate) use gateway::DEPLOYMENT;

/// The objects of a tenant, in the order in which they are applied: restrictions before the pods that they restrict, and
/// the runtime namespace before the tenant's own, so that nothing that its members do there delays what restricts them.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// The runtime namespace. The tenant's own namespace is created once and then belongs to the tenant.
    pub runtime_namespace: Rendered,
    /// The operator's access to the runtime namespace.
    pub runtime_access: Rendered,
    /// Quota and limits of the runtime namespace, and its network policies.
    pub restrictions: Vec<Rendered>,
    /// Certificate of the gateway.
    pub certificate: LeafRequest,
    /// Service account, Service and disruption budget of the gateway.
    pub gateway: [Rendered; 3],
    /// Deployment of the gateway.
    pub deployment: Rendered,
    /// The operator's access to the tenant's own namespace.
    pub access: Rendered,
    /// Quota of the tenant's own namespace.
    pub quota: Rendered,
    /// The tenant's upper limits, for its members to read.
    pub ceilings: Rendered,
}

/// Renders the objects of a tenant.
pub(crate) fn desired(tenant: &Tenant, settings: &Settings) -> Objects {
    let mut restrictions = namespaces::limits(tenant);
    restrictions.extend(policies::render(tenant, settings));
    Objects {
        runtime_namespace: namespaces::runtime(tenant),
        runtime_access: access::to_runtime(tenant, settings),
        restrictions,
        certificate: certificate(tenant, settings),
        gateway: gateway::render(tenant),
        deployment: gateway::deployment(tenant, settings),
        access: access::to_own(tenant, settings),
        quota: namespaces::quota(tenant, &tenant.namespace, &tenant.quota),
        ceilings: ceilings::render(tenant),
    }
}

/// Returns what the gateway's certificate has to contain.
fn certificate(tenant: &Tenant, settings: &Settings) -> LeafRequest {
    let name = format!("gateway.{}.svc", tenant.runtime_namespace);
    LeafRequest {
        dns: vec![name.clone(), format!("{name}.{}", settings.cluster_domain)],
        uri: Some(gateway_identity(&tenant.id.uid)),
        server: true,
        client: true,
    }
}

/// Returns the metadata of an object in one of the tenant's namespaces.
fn metadata(tenant: &Tenant, component: &str, namespace: &str, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "labels": labels::of_tenant(component, &tenant.id.name, &tenant.id.uid),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::controllers::tenant::tests::checked;

    fn yaml<'r>(objects: impl IntoIterator<Item = &'r Rendered>) -> String {
        let text = |object: &Rendered| serde_yaml_ng::to_string(&object.value).unwrap();
        objects.into_iter().map(text).collect::<Vec<_>>().join("---\n")
    }

    fn render(settings: &Settings) -> Objects {
        desired(&checked(), settings)
    }

    fn restrictions(settings: &Settings) -> String {
        let Objects { quota, restrictions, .. } = render(settings);
        yaml([&quota].into_iter().chain(&restrictions))
    }

    fn gateway(settings: &Settings) -> String {
        let Objects { gateway, deployment, .. } = render(settings);
        yaml(gateway.iter().chain([&deployment]))
    }

    #[test]
    fn namespaces_and_bindings() {
        let objects = render(&Settings::example());
        insta::assert_snapshot!("namespaces", yaml([&objects.runtime_namespace]));
        insta::assert_snapshot!("bindings", yaml([&objects.access, &objects.runtime_access]));
    }

    #[test]
    fn ceilings() {
        insta::assert_snapshot!("ceilings", yaml([&render(&Settings::example()).ceilings]));
    }

    #[test]
    fn restrictions_of_both_namespaces() {
        insta::assert_snapshot!("restrictions", restrictions(&Settings::example()));
    }

    #[test]
    fn objects_of_the_gateway() {
        insta::assert_snapshot!("gateway", gateway(&Settings::example()));
    }

    #[test]
    fn no_network_policy_allows_dns() {
        assert!(!restrictions(&Settings::example()).contains("port: 53"));
    }

    #[test]
    fn without_a_monitoring_namespace_metrics_are_not_reachable() {
        let settings = Settings { monitoring_namespace: None, ..Settings::example() };
        assert!(!restrictions(&settings).contains("9090"));
    }

    #[test]
    fn ids_can_be_left_to_the_platform() {
        let settings = Settings { set_security_ids: false, ..Settings::example() };
        let text = gateway(&settings);
        assert!(!text.contains("runAsUser") && !text.contains("fsGroup") && text.contains("runAsNonRoot: true"));
    }

    #[test]
    fn a_gateway_of_an_earlier_version_gets_nothing_that_it_does_not_know() {
        let earlier = Settings { has_newest_form: false, may_scale: false, ..Settings::example() };
        let text = gateway(&earlier);
        assert!(!["public-tls", "peers", "topologySpread"].iter().any(|newer| text.contains(newer)), "{text}");
        let several = Tenant { gateway_replicas: 3, ..checked() };
        assert_eq!(desired(&several, &earlier).deployment.value["spec"]["replicas"], 1);
    }

    #[test]
    fn gateways_run_where_the_tenant_says() {
        let gateway_pod = serde_json::from_value(json!({
            "nodeSelector": {"pool": "infra"},
            "tolerations": [{"key": "pool", "value": "infra"}],
            "topologySpreadConstraints": [
                {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "priorityClassName": "high",
            "labels": {"example.com/team": "platform", "app.kubernetes.io/component": "server"},
            "annotations": {"example.com/note": "n"},
        }));
        let tenant = Tenant { gateway_pod: gateway_pod.unwrap(), ..checked() };
        let mut template = desired(&tenant, &Settings::example()).deployment.value["spec"]["template"].take();
        assert_eq!(template["metadata"]["labels"][labels::COMPONENT], "gateway", "ours are stronger");
        for ours in ["containers", "volumes", "securityContext"] {
            template["spec"].as_object_mut().unwrap().remove(ours);
        }
        insta::assert_snapshot!("placed_gateway", serde_yaml_ng::to_string(&template).unwrap());
    }

    #[test]
    fn several_gateways_are_replaced_one_by_one_and_have_the_pods_of_a_single_one() {
        let spec = |gateway_replicas| {
            let tenant = Tenant { gateway_replicas, ..checked() };
            desired(&tenant, &Settings::example()).deployment.value["spec"].clone()
        };
        let (one, three) = (spec(1), spec(3));
        assert_eq!((&one["replicas"], &one["strategy"]), (&json!(1), &json!({"type": "Recreate"})));
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        assert_eq!((&three["replicas"], &three["strategy"]), (&json!(3), &rolling));
        assert_eq!(one["template"], three["template"], "scaling would restart the gateways");
    }

    #[test]
    fn every_object_names_its_tenant_by_uid() {
        for object in all(&render(&Settings::example())) {
            assert_eq!(object.value["metadata"]["labels"][labels::TENANT_UID], "u-1", "{object}");
        }
    }

    /// Returns every object in the order in which it is applied.
    pub(crate) fn all(objects: &Objects) -> Vec<&Rendered> {
        let Objects { runtime_namespace, runtime_access, restrictions, gateway, deployment, access, .. } = objects;
        let first = [runtime_namespace, runtime_access].into_iter().chain(restrictions).chain(gateway);
        first.chain([deployment, access, &objects.quota, &objects.ceilings]).collect()
    }
}
