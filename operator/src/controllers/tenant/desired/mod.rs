//! Step three: what a tenant's namespaces hold. Pure: from a checked tenant and the settings to objects, in the order
//! in which they are applied (fences before what they fence).

mod access;
mod gateway;
mod namespaces;
pub(crate) mod policies;

use serde_json::{Value, json};

use super::validate::Tenant;
use crate::controllers::manifests::settings::Settings;
use crate::credentials::ca::LeafRequest;
use crate::kubernetes::apply::{ApplyError, Rendered};
use crate::kubernetes::labels;

pub(crate) use gateway::DEPLOYMENT;

/// The objects of a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// First: the namespaces.
    pub namespaces: Vec<Rendered>,
    /// Then the operator's own way in.
    pub bindings: Vec<Rendered>,
    /// Then quotas and network policies.
    pub fences: Vec<Rendered>,
    /// Then, with its certificate there, the gateway.
    pub gateway: Vec<Rendered>,
}

impl Objects {
    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Rendered> {
        self.namespaces.iter().chain(&self.bindings).chain(&self.fences).chain(&self.gateway)
    }
}

/// Renders them.
pub(crate) fn desired(tenant: &Tenant, settings: &Settings) -> Result<Objects, ApplyError> {
    Ok(Objects {
        namespaces: namespaces::render(tenant),
        bindings: access::render(tenant, settings),
        fences: namespaces::quotas(tenant).into_iter().chain(policies::render(tenant, settings)?).collect(),
        gateway: gateway::render(tenant, settings),
    })
}

/// The operator's way into one of the tenant's namespaces.
pub(super) fn binding(tenant: &Tenant, settings: &Settings, namespace: &str) -> Option<Rendered> {
    access::render(tenant, settings).into_iter().find(|binding| binding.namespace.as_deref() == Some(namespace))
}

/// What the gateway's certificate carries.
pub(crate) fn gateway_certificate(tenant: &Tenant, settings: &Settings) -> LeafRequest {
    let name = format!("gateway.{}.svc", tenant.runtime_namespace);
    LeafRequest {
        dns: vec![name.clone(), format!("{name}.{}", settings.cluster_domain)],
        uri: Some(crate::credentials::ca::gateway_identity(&tenant.uid)),
        server: true,
        client: true,
    }
}

/// The metadata of an object in one of the tenant's namespaces.
fn metadata(tenant: &Tenant, component: &str, namespace: &str, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "labels": labels::of_tenant(component, &tenant.name, &tenant.uid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::tenant::tests::checked;

    fn yaml(objects: &[Rendered]) -> String {
        let texts: Vec<_> = objects.iter().map(|object| serde_yaml_ng::to_string(&object.value).unwrap()).collect();
        texts.join("---\n")
    }

    #[test]
    fn namespaces_quotas_and_bindings() {
        let objects = desired(&checked(), &Settings::example()).unwrap();
        insta::assert_snapshot!("namespaces", yaml(&objects.namespaces));
        insta::assert_snapshot!("bindings", yaml(&objects.bindings));
    }

    #[test]
    fn fences() {
        insta::assert_snapshot!("fences", yaml(&desired(&checked(), &Settings::example()).unwrap().fences));
    }

    #[test]
    fn gateway() {
        insta::assert_snapshot!("gateway", yaml(&desired(&checked(), &Settings::example()).unwrap().gateway));
    }

    #[test]
    fn no_policy_lets_a_pod_ask_a_name_server() {
        let objects = desired(&checked(), &Settings::example()).unwrap();
        assert!(!yaml(&objects.fences).contains("port: 53"));
    }

    #[test]
    fn without_a_monitoring_namespace_nobody_scrapes() {
        let settings = Settings { monitoring_namespace: None, ..Settings::example() };
        assert!(!yaml(&desired(&checked(), &settings).unwrap().fences).contains("9090"));
    }

    #[test]
    fn ids_can_be_left_to_the_platform() {
        let settings = Settings { set_security_ids: false, ..Settings::example() };
        let text = yaml(&desired(&checked(), &settings).unwrap().gateway);
        assert!(!text.contains("runAsUser") && !text.contains("fsGroup") && text.contains("runAsNonRoot: true"));
    }

    #[test]
    fn every_object_names_its_tenant_by_uid() {
        for object in desired(&checked(), &Settings::example()).unwrap().all() {
            let tenant_namespace = object.resource.kind == "Namespace" && object.name == "acme";
            let uid = &object.value["metadata"]["labels"][labels::TENANT_UID];
            assert!(tenant_namespace || uid == "u-1", "{object}");
        }
    }
}
