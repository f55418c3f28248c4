//! Step three: the objects that run a server. Pure.
//!
//! The tool container runs the user's image under our shim. An init container runs our image and installs the shim into a
//! volume that the tool container mounts read-only, so the user's image needs nothing of ours.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use mcp_fleet_core::credentials::ca::{LeafRequest, gateway_identity, server_identity};
use mcp_fleet_core::labels;
use serde_json::{Value, json};

use super::program::literal;
use super::validate::Server;
use crate::controllers::manifests::network::{scrape, tcp};
use crate::controllers::manifests::placement::{Kind, configure};
use crate::controllers::manifests::pod::{container_security, pod_security, ports, probes, pull_with};
use crate::controllers::manifests::settings::Settings;
use crate::controllers::manifests::tls_secret_name;
use crate::controllers::teardown::claim_retention;
use crate::kubernetes::apply::Rendered;

/// Name of the container that runs the user's program.
pub(super) const TOOL: &str = "tool";

/// The objects of a server, in the order in which they are applied: the network policy before the pods that it restricts.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// Certificate of the shim.
    pub certificate: LeafRequest,
    pub policy: Rendered,
    pub service: Rendered,
    /// Deployment or `StatefulSet`.
    pub workload: Rendered,
}

/// Renders the objects of a server.
pub(crate) fn desired(server: &Server, settings: &Settings) -> Objects {
    Objects {
        certificate: certificate(server),
        policy: policy(server, settings),
        service: service(server),
        workload: workload(server, settings),
    }
}

/// Returns what the shim's certificate has to contain. The shim never opens connections, so it is no client certificate.
fn certificate(server: &Server) -> LeafRequest {
    LeafRequest {
        dns: vec![],
        uri: Some(server_identity(&server.tenant.uid, &server.id.uid)),
        server: true,
        client: false,
    }
}

fn metadata(server: &Server) -> Value {
    json!({"name": server.object_name(), "namespace": server.runtime_namespace, "labels": server.labels()})
}

fn policy(server: &Server, settings: &Settings) -> Rendered {
    let gateway = json!({"podSelector": {"matchLabels": labels::selector("gateway")}});
    let mut ingress = vec![json!({"from": [gateway], "ports": [tcp(8443)]})];
    ingress.extend(scrape(settings));
    Rendered::json::<NetworkPolicy>(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(server),
        "spec": {
            "podSelector": {"matchLabels": server.selector()},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
        },
    }))
}

/// Renders the Service for which Kubernetes maintains the addresses of the pods (EndpointSlices). It has no address of its
/// own: the gateway connects to pods, and the API server gives out addresses one at a time, slower the more there are.
///
/// Earlier versions made a Service with an address, under the name of the other objects. The address of a Service cannot
/// be removed, so this one has another name.
fn service(server: &Server) -> Rendered {
    let mut metadata = metadata(server);
    metadata["name"] = json!(format!("{}-pods", server.object_name()));
    Rendered::json::<Service>(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            "selector": server.selector(),
            "ports": [{"name": "https", "port": 8443, "targetPort": "https", "protocol": "TCP"}],
        },
    }))
}

/// Renders a `StatefulSet` if the server has a workspace, so that no two pods mount it at the same time, or else a
/// Deployment.
fn workload(server: &Server, settings: &Settings) -> Rendered {
    let mut template = json!({"metadata": {"labels": server.labels()}, "spec": pod(server, settings)});
    if let Some(annotations) = server.program.annotations() {
        template["metadata"]["annotations"] = annotations;
    }
    let kind = if server.workspace.is_some() { Kind::StatefulSet } else { Kind::Deployment };
    configure(&mut template, &server.pod, &server.selector(), kind);
    let mut spec = json!({
        "replicas": server.replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": server.selector()},
        "template": template,
    });
    let Some(workspace) = &server.workspace else {
        return Rendered::json::<Deployment>(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(server), "spec": spec,
        }));
    };
    // Cannot be changed later; the names in DNS that a Service of this name would give to pods are not used.
    spec["serviceName"] = json!(server.object_name());
    // A pod that never became ready must not keep its successor from starting.
    spec["podManagementPolicy"] = json!("Parallel");
    // A deletion of the StatefulSet must not delete the data. Only the teardown of the server does.
    spec["persistentVolumeClaimRetentionPolicy"] = claim_retention();
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": workspace.claim.template, "labels": server.labels()},
        "spec": {
            "accessModes": [workspace.access_mode],
            "resources": {"requests": {"storage": workspace.storage}},
        },
    });
    if let Some(class) = &workspace.storage_class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    spec["volumeClaimTemplates"] = json!([claim]);
    Rendered::json::<StatefulSet>(json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata(server), "spec": spec,
    }))
}

fn pod(server: &Server, settings: &Settings) -> Value {
    let install = json!({
        "name": "install",
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["/mcp-pod", "install", "/mcp-fleet/bin/mcp-pod"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "bin", "mountPath": "/mcp-fleet/bin"}],
    });
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": pod_security(settings),
        "initContainers": [install],
        "containers": [tool(server)],
        "volumes": [
            {"name": "bin", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "tls", "secret": {"secretName": tls_secret_name(&server.object_name())}},
        ],
    });
    server.program.configure_pod(&mut pod);
    pull_with(&mut pod, settings.pull_secrets.iter().chain(&server.pull_secrets));
    pod
}

fn tool(server: &Server) -> Value {
    let mut mounts = vec![
        json!({"name": "bin", "mountPath": "/mcp-fleet/bin", "readOnly": true}),
        json!({"name": "tls", "mountPath": "/mcp-fleet/tls", "readOnly": true}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ];
    if let Some(workspace) = &server.workspace {
        mounts.push(json!({"name": workspace.claim.template, "mountPath": workspace.mount_path}));
    }
    let mut container = json!({
        "name": TOOL,
        "command": command(server),
        "ports": ports(),
        "securityContext": container_security(),
        "volumeMounts": mounts,
    });
    server.program.configure_container(&mut container);
    for (name, probe) in probes() {
        container[name] = probe;
    }
    container
}

fn command(server: &Server) -> Vec<String> {
    let mut command = vec![
        "/mcp-fleet/bin/mcp-pod".to_owned(),
        "shim".to_owned(),
        "--tls-dir=/mcp-fleet/tls".to_owned(),
        format!("--gateway-identity={}", gateway_identity(&server.tenant.uid)),
    ];
    let workspace = server.workspace.iter();
    command.extend(workspace.map(|workspace| format!("--workspace={}", literal(&workspace.mount_path))));
    command.extend(server.program.options.iter().cloned());
    command.push("--".to_owned());
    command.extend(server.program.literal_command());
    command
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::pod::PodSettings;
    use mcp_fleet_crds::server::WorkspaceRetention;

    use super::*;
    use crate::controllers::server::tests::{checked, inputs, server};
    use crate::controllers::server::validate::validate;
    use crate::controllers::server::{placement, pull};
    use crate::controllers::tenant::tests::tenant;

    fn yaml<'r>(objects: impl IntoIterator<Item = &'r Rendered>) -> String {
        let text = |object: &Rendered| serde_yaml_ng::to_string(&object.value).unwrap();
        objects.into_iter().map(text).collect::<Vec<_>>().join("---\n")
    }

    #[test]
    fn a_server_with_a_workspace() {
        let Objects { certificate: _, policy, service, workload } = desired(&checked(), &Settings::example());
        insta::assert_snapshot!("with_workspace", yaml([&policy, &service, &workload]));
    }

    /// The teardown deletes or retains the claim, so the `StatefulSet` is the same for both values.
    #[test]
    fn a_stateful_set_never_owns_the_workspace() {
        for retain in [WorkspaceRetention::Retain, WorkspaceRetention::Delete] {
            let mut object = server();
            object.spec.workspace.as_mut().unwrap().retain = retain;
            let workload = workload(&validate(&object, &inputs()).unwrap(), &Settings::example());
            let spec = &workload.value["spec"];
            let claims = json!({
                "retention": spec["persistentVolumeClaimRetentionPolicy"],
                "templates": spec["volumeClaimTemplates"],
            });
            insta::assert_snapshot!("claims", serde_yaml_ng::to_string(&claims).unwrap());
        }
    }

    #[test]
    fn a_server_without_a_workspace_is_a_deployment() {
        let server = Server { workspace: None, replicas: 3, ..checked() };
        let objects = desired(&server, &Settings::example());
        insta::assert_snapshot!("without_workspace", yaml([&objects.workload]));
    }

    /// Everything that can be set, in a form that the API server would keep.
    fn settings() -> PodSettings {
        serde_json::from_value(json!({
            "nodeSelector": {"kernel": "6.12"},
            "tolerations": [{"key": "pool", "value": "tools"}, {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
            "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a", "b"]}]}]},
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 5, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}],
            }},
            "topologySpreadConstraints": [
                {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2}],
            "priorityClassName": "low",
            "runtimeClassName": "kata",
            "labels": {"example.com/team": "files", "mcp-fleet.dev/tenant": "other"},
            "annotations": {"example.com/note": "n"},
        }))
        .unwrap()
    }

    #[test]
    fn a_server_whose_pods_are_placed() {
        let mut server = Server { workspace: None, pod: Box::new(settings()), ..checked() };
        server.pull_secrets = vec!["mcp-files.pull.registry".into()];
        let template = workload(&server, &Settings::example()).value["spec"]["template"].take();
        assert_eq!(template["metadata"]["labels"]["mcp-fleet.dev/tenant"], "acme", "ours are stronger");
        let mut shown = template.clone();
        for ours in ["containers", "initContainers", "volumes", "securityContext"] {
            shown["spec"].as_object_mut().unwrap().remove(ours);
        }
        insta::assert_snapshot!("placed", serde_yaml_ng::to_string(&shown).unwrap());
        // As the API server holds it, with the fields that it knows.
        let typed: k8s_openapi::api::core::v1::PodTemplateSpec = serde_json::from_value(template.clone()).unwrap();
        let live = serde_json::to_value(typed).unwrap();
        assert_eq!(live, template, "every field is one of a pod");
        let mut expected = settings();
        expected.labels.remove("mcp-fleet.dev/tenant");
        assert_eq!(placement::read(&live), Some(expected));
    }

    #[test]
    fn tool_pods_pull_with_the_secrets_of_the_installation_too() {
        let of_server = Server { pull_secrets: vec!["mcp-files.pull.registry".into()], ..checked() };
        let settings = Settings { pull_secrets: vec!["image-pull.registry".into()], ..Settings::example() };
        let template = workload(&of_server, &settings).value["spec"]["template"].take();
        let both = json!([{"name": "image-pull.registry"}, {"name": "mcp-files.pull.registry"}]);
        assert_eq!(template["spec"]["imagePullSecrets"], both);
        let mut object = server();
        assert!(pull::read(&object, &tenant(), &template).is_empty(), "nobody names it");
        object.spec.image_pull_secrets = serde_json::from_value(json!([{"name": "registry"}])).unwrap();
        assert_eq!(pull::read(&object, &tenant(), &template), ["mcp-files.pull.registry"]);
    }

    #[test]
    fn a_path_of_a_workspace_is_not_expanded() {
        let mut server = checked();
        server.workspace.as_mut().unwrap().mount_path = "/data/$(TOKEN)".into();
        assert!(command(&server).contains(&"--workspace=/data/$$(TOKEN)".to_owned()));
    }

    #[test]
    fn the_tool_container_cannot_write_to_the_shims_volumes() {
        let container = tool(&checked());
        for mount in container["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            assert_eq!(path.starts_with("/mcp-fleet"), mount["readOnly"] == true, "{path}");
        }
    }
}
