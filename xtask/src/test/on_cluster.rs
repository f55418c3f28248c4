//! Tests that need a cluster. Each brings up its own, under a name that no person uses, removes what an earlier run has
//! left of it first, and takes it down last.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::on_host::{cargo, show};
use crate::cluster::{Cluster, Mode, Options, verify};
use crate::tools::repository;

/// The cluster of [`api`]; the name tells it from a person's.
const API: &str = "fleet-test-api";
/// The cluster of [`end_to_end`].
const END_TO_END: &str = "fleet-test";

/// What a test binary that needs a cluster reads.
const KUBECONFIG: &str = "MCP_FLEET_TEST_KUBECONFIG";

/// The API and the controllers against etcd and an API server.
pub fn api() -> Result<()> {
    on_own_cluster(API, true, |cluster| {
        let mut tests = cargo(&["test", "--package", "mcp-fleet-crds", "--package", "mcp-fleet-operator"]);
        tests.args(["--features", "mcp-fleet-crds/cluster-tests,mcp-fleet-operator/cluster-tests", "--test", "*"]);
        show(tests.env(KUBECONFIG, cluster.kubeconfig()))
    })
}

/// What the product's isolation stands on, then the demo, then the faults on what it has left standing.
pub fn end_to_end() -> Result<()> {
    on_own_cluster(END_TO_END, false, |cluster| {
        if cluster.mode() == Mode::Kind {
            println!("skipped: the check of NetworkPolicies, because kind's own enforcer is not ours to test");
        } else {
            verify::run(cluster)?;
        }
        let this = env::current_exe().context("failed to find this program")?;
        let mut demo = Command::new(this);
        show(demo.args(["demo", "--keep", "--name", END_TO_END]).current_dir(repository()))?;
        // Built outside, run inside the cluster's network.
        let faults = ["test", "--package", "mcp-fleet-e2e", "--features", "cluster-tests", "--test", "*"];
        show(cargo(&faults).arg("--no-run"))?;
        let mut tests = cluster.command("cargo")?;
        tests.args(faults).args(["--", "--test-threads", "1"]).current_dir(repository());
        show(tests.env(KUBECONFIG, cluster.kubeconfig()).env("MCP_FLEET_TEST_CLUSTER", END_TO_END))
    })
}

fn on_own_cluster(name: &str, apiserver_only: bool, tests: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    Cluster::down(name)?;
    let cluster = Cluster::up(&Options { name: name.to_owned(), apiserver_only })?;
    let result = tests(&cluster);
    Cluster::down(name)?;
    result
}
