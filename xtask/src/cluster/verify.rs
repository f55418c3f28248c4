//! `cargo xtask cluster verify`: checks that a running cluster provides what the product relies on. The checks are Go
//! tests in `tests/cluster/nodetest`. This module loads the image that they run in pods, and runs them in the cluster's
//! network.

use anyhow::{Result, bail};

use super::{Cluster, Mode};
use crate::image;
use crate::tools::{command, go, progress};

/// Runs the checks. The error contains the output of the failed ones.
pub fn run(cluster: &Cluster) -> Result<()> {
    if cluster.mode() != Mode::Node {
        bail!(
            "the checks connect to pod addresses, which is possible only on the packaged node, not with {}",
            cluster.mode()
        );
    }
    cluster.load_image(&image::build(&image::PROBE, cluster.builder())?)?;
    // Compile on the host: the cluster's network has no route to the package registries.
    let tests = go::node_tests()?;
    progress::step("checking Services, DNS and NetworkPolicies", "15 s", || {
        let mut verify = cluster.command(tests)?;
        verify.args(["-test.timeout=5m"]).env("MCP_FLEET_VERIFY", cluster.kubeconfig());
        command::run(&mut verify)
    })
}
