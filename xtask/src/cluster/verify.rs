//! `cargo xtask cluster verify`: checks on a running cluster what the product relies on. The checks are Go tests in
//! `tests/cluster/nodetest`; this gives them the image they run in pods and the network they run in.

use anyhow::{Result, bail};

use super::{Cluster, Mode};
use crate::image;
use crate::tools::{command, go, progress};

/// Runs the checks; the error of a failed one says which and why.
pub fn run(cluster: &Cluster) -> Result<()> {
    if cluster.mode() != Mode::Node {
        bail!("the checks talk to pods' addresses, which are reached only on the packaged node");
    }
    cluster.load_image(&image::build(&image::PROBE)?)?;
    // Compiled outside, because there is no way to the registries from the cluster's network.
    let tests = go::node_tests()?;
    progress::step("checking the cluster's network", "15 s", || {
        let mut verify = cluster.command(tests)?;
        verify.args(["-test.timeout=5m"]).env("MCP_FLEET_VERIFY", cluster.kubeconfig());
        command::run(&mut verify)
    })
}
