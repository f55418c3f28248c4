//! The images that there are.

use super::Image;
use crate::tools::{go, rust};

/// The data plane.
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

/// The file server that the quickstart uses.
pub const SERVER_FILESYSTEM: Image = Image {
    recipe: "examples/images/server-filesystem/Containerfile",
    usually: "1 min",
    on_debian: true,
    ..Image::local("server-filesystem", "mcp-fleet.local/server-filesystem:2026.8.31")
};

/// The time server that the quickstart uses.
pub const SERVER_TIME: Image = Image {
    recipe: "examples/images/server-time/Containerfile",
    usually: "1 min",
    on_debian: true,
    ..Image::local("server-time", "mcp-fleet.local/server-time:2026.10.19")
};

/// The demo's agent: an MCP client and a shell.
pub const INSPECTOR: Image = Image {
    recipe: "examples/images/inspector/Containerfile",
    usually: "1 min",
    on_debian: true,
    ..Image::local("inspector", "mcp-fleet.local/inspector:2.12.0")
};

/// Prometheus, which the demo asks for what was spent.
pub const PROMETHEUS: Image = Image {
    recipe: "examples/images/prometheus/Containerfile",
    usually: "30 s",
    on_debian: true,
    ..Image::local("prometheus", "mcp-fleet.local/prometheus:2.42")
};

/// Holds a pod's namespaces open.
pub const PAUSE: Image = Image {
    recipe: "tests/cluster/images/pause/Containerfile",
    usually: "1 s",
    inputs: || Ok(vec![go::pause()?]),
    ..Image::local("pause", "mcp-fleet.local/pause:1")
};

/// The packaged node's DNS server.
pub const COREDNS: Image = Image {
    recipe: "tests/cluster/images/coredns/Containerfile",
    usually: "2 s",
    inputs: || Ok(vec![go::coredns()?]),
    ..Image::local("coredns", "mcp-fleet.local/coredns:1")
};

/// What the node's tests run in pods.
pub const PROBE: Image = Image {
    recipe: "tests/cluster/images/probe/Containerfile",
    usually: "1 s",
    inputs: || Ok(vec![go::probe()?]),
    ..Image::local("probe", "mcp-fleet.local/probe:1")
};

/// What the demo runs.
pub const DEMO: &[&Image] = &[&OPERATOR, &MCP_POD, &SERVER_FILESYSTEM, &SERVER_TIME, &INSPECTOR, &PROMETHEUS];

/// All of them, for the command line.
pub const ALL: &[&Image] =
    &[&MCP_POD, &OPERATOR, &SERVER_FILESYSTEM, &SERVER_TIME, &INSPECTOR, &PROMETHEUS, &PAUSE, &COREDNS, &PROBE];

impl Image {
    /// What most images have in common.
    const fn local(name: &'static str, reference: &'static str) -> Self {
        Self { name, reference, recipe: "", target: None, usually: "", inputs: || Ok(Vec::new()), on_debian: false }
    }
}
