//! The images that there are.

use super::Image;
use crate::tools::go;

/// Holds a pod's namespaces open.
pub const PAUSE: Image = Image {
    name: "pause",
    reference: "mcp-fleet.local/pause:1",
    recipe: "tests/cluster/images/pause/Containerfile",
    target: None,
    usually: "1 s",
    inputs: || Ok(vec![go::pause()?]),
    on_debian: false,
};

/// The packaged node's DNS server.
pub const COREDNS: Image = Image {
    name: "coredns",
    reference: "mcp-fleet.local/coredns:1",
    recipe: "tests/cluster/images/coredns/Containerfile",
    target: None,
    usually: "2 s",
    inputs: || Ok(vec![go::coredns()?]),
    on_debian: false,
};

/// All of them, for the command line.
pub const ALL: &[&Image] = &[&PAUSE, &COREDNS];
