//! All images that this repository builds.

use std::path::PathBuf;

use anyhow::Result;

use super::{Builder, Image, build};
use crate::tools::rust::{self, Profile};
use crate::tools::{go, repository};

/// The data plane: gateway and shim.
pub const MCP_POD: Image = Image {
    recipe: "Containerfile",
    target: Some("mcp-pod"),
    usually: "1 s",
    inputs: |_| Ok(vec![rust::static_binary("mcp-pod", Profile::Release)?]),
    ..Image::local("mcp-pod", "mcp-fleet.local/mcp-pod:dev")
};

/// The operator.
pub const OPERATOR: Image = Image {
    recipe: "Containerfile",
    target: Some("operator"),
    usually: "1 s",
    inputs: |_| Ok(vec![rust::static_binary("mcp-fleet-operator", Profile::Release)?]),
    ..Image::local("operator", "mcp-fleet.local/operator:dev")
};

/// The data plane for the demo, under the reference of [`MCP_POD`].
const MCP_POD_QUICK: Image =
    Image { name: "mcp-pod-quick", inputs: |_| Ok(vec![rust::static_binary("mcp-pod", Profile::Demo)?]), ..MCP_POD };

/// The operator for the demo, under the reference of [`OPERATOR`].
const OPERATOR_QUICK: Image = Image {
    name: "operator-quick",
    inputs: |_| Ok(vec![rust::static_binary("mcp-fleet-operator", Profile::Demo)?]),
    ..OPERATOR
};

/// The file server of the quickstart.
pub const SERVER_FILESYSTEM: Image = Image {
    recipe: "examples/images/server-filesystem/Containerfile",
    usually: "1 min",
    on_debian: true,
    ..Image::local("server-filesystem", "mcp-fleet.local/server-filesystem:2026.8.31")
};

/// The time server of the quickstart.
pub const SERVER_TIME: Image = Image {
    recipe: "examples/images/server-time/Containerfile",
    usually: "1 min",
    on_debian: true,
    ..Image::local("server-time", "mcp-fleet.local/server-time:2026.10.19")
};

/// The agent of the demo: an MCP client and a shell.
pub const INSPECTOR: Image = Image {
    recipe: "examples/images/inspector/Containerfile",
    usually: "1 min",
    on_debian: true,
    ..Image::local("inspector", "mcp-fleet.local/inspector:2.12.0")
};

/// Prometheus, which the demo queries for the money spent.
pub const PROMETHEUS: Image = Image {
    recipe: "examples/images/prometheus/Containerfile",
    usually: "30 s",
    on_debian: true,
    ..Image::local("prometheus", "mcp-fleet.local/prometheus:2.42")
};

/// The pause container, which holds the namespaces of a pod open.
pub const PAUSE: Image = Image {
    recipe: "tests/cluster/images/pause/Containerfile",
    usually: "1 s",
    inputs: |_| Ok(vec![go::pause()?]),
    ..Image::local("pause", "mcp-fleet.local/pause:1")
};

/// The DNS server of the packaged node.
pub const COREDNS: Image = Image {
    recipe: "tests/cluster/images/coredns/Containerfile",
    usually: "2 s",
    inputs: |_| Ok(vec![go::coredns()?]),
    ..Image::local("coredns", "mcp-fleet.local/coredns:1")
};

/// The program that the checks of the node run in pods.
pub const PROBE: Image = Image {
    recipe: "tests/cluster/images/probe/Containerfile",
    usually: "1 s",
    inputs: |_| Ok(vec![go::probe()?]),
    ..Image::local("probe", "mcp-fleet.local/probe:1")
};

/// The programs that run as pods in a kind cluster on [`KIND_NODE`].
pub const KUBERNETES: Image = Image {
    recipe: "tests/cluster/images/kubernetes/Containerfile",
    usually: "30 s",
    on_debian: true,
    inputs: |_| Ok(vec![go::kubernetes()?.join(go::KUBERNETES_BINARY), go::local_path_provisioner()?]),
    ..Image::local("kubernetes", "mcp-fleet.local/kubernetes:1")
};

/// A node image for kind, for machines without an image registry. Only docker can build and use it.
pub const KIND_NODE: Image = Image {
    recipe: "tests/cluster/images/kind-node/Containerfile",
    usually: "1 min",
    on_debian: true,
    inputs: kind_node,
    ..Image::local("kind-node", "mcp-fleet.local/kind-node:1")
};

fn kind_node(builder: Builder) -> Result<Vec<PathBuf>> {
    let folder = repository().join("tests/cluster/images/kind-node");
    let mut inputs: Vec<PathBuf> = [
        "10-pods.conflist",
        "default-cni.yaml",
        "default-storage.yaml",
        "load-images",
        "netpol.path",
        "netpol.service",
    ]
    .map(|file| folder.join(file))
    .to_vec();
    inputs.extend([go::kind_base()?, go::kubernetes()?.join(go::KUBERNETES_BINARY), go::kubeadm()?, go::netpol()?]);
    for image in [&KUBERNETES, &COREDNS, &PAUSE] {
        inputs.push(build(image, builder)?);
    }
    Ok(inputs)
}

/// Images that the demo loads.
pub const DEMO: &[&Image] =
    &[&OPERATOR_QUICK, &MCP_POD_QUICK, &SERVER_FILESYSTEM, &SERVER_TIME, &INSPECTOR, &PROMETHEUS];

/// The same, with the product as released.
pub const DEMO_RELEASED: &[&Image] = &[&OPERATOR, &MCP_POD, &SERVER_FILESYSTEM, &SERVER_TIME, &INSPECTOR, &PROMETHEUS];

/// All images that any builder can build, for the command line.
pub const ALL: &[&Image] =
    &[&MCP_POD, &OPERATOR, &SERVER_FILESYSTEM, &SERVER_TIME, &INSPECTOR, &PROMETHEUS, &PAUSE, &COREDNS, &PROBE];

/// The product without optimisation, for the command line.
pub const QUICK: &[&Image] = &[&MCP_POD_QUICK, &OPERATOR_QUICK];

/// Images for docker alone, for the command line.
pub const DOCKER_ONLY: &[&Image] = &[&KUBERNETES, &KIND_NODE];

impl Image {
    /// Returns an image with defaults for everything but its names.
    const fn local(name: &'static str, reference: &'static str) -> Self {
        Self { name, reference, recipe: "", target: None, usually: "", inputs: |_| Ok(Vec::new()), on_debian: false }
    }
}
