//! All images that this repository builds.

use super::Image;
use crate::tools::{go, rust};

/// The data plane: gateway and shim.
pub const MCP_POD: Image = Image {
    recipe: "Containerfile",
    target: Some("mcp-pod"),
    usually: "1 s",
    inputs: || Ok(vec![rust::static_binary("mcp-pod")?]),
    ..Image::local("mcp-pod", "mcp-fleet.local/mcp-pod:dev")
};

/// The operator.
pub const OPERATOR: Image = Image {
    recipe: "Containerfile",
    target: Some("operator"),
    usually: "1 s",
    inputs: || Ok(vec![rust::static_binary("mcp-fleet-operator")?]),
    ..Image::local("operator", "mcp-fleet.local/operator:dev")
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
    inputs: || Ok(vec![go::pause()?]),
    ..Image::local("pause", "mcp-fleet.local/pause:1")
};

/// The DNS server of the packaged node.
pub const COREDNS: Image = Image {
    recipe: "tests/cluster/images/coredns/Containerfile",
    usually: "2 s",
    inputs: || Ok(vec![go::coredns()?]),
    ..Image::local("coredns", "mcp-fleet.local/coredns:1")
};

/// The program that the checks of the node run in pods.
pub const PROBE: Image = Image {
    recipe: "tests/cluster/images/probe/Containerfile",
    usually: "1 s",
    inputs: || Ok(vec![go::probe()?]),
    ..Image::local("probe", "mcp-fleet.local/probe:1")
};

/// Images that the demo loads.
pub const DEMO: &[&Image] = &[&OPERATOR, &MCP_POD, &SERVER_FILESYSTEM, &SERVER_TIME, &INSPECTOR, &PROMETHEUS];

/// All images, for the command line.
pub const ALL: &[&Image] =
    &[&MCP_POD, &OPERATOR, &SERVER_FILESYSTEM, &SERVER_TIME, &INSPECTOR, &PROMETHEUS, &PAUSE, &COREDNS, &PROBE];

impl Image {
    /// Returns an image with defaults for everything but its names.
    const fn local(name: &'static str, reference: &'static str) -> Self {
        Self { name, reference, recipe: "", target: None, usually: "", inputs: || Ok(Vec::new()), on_debian: false }
    }
}
