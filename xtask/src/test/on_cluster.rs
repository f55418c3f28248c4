//! Tests that need a cluster. Each part first removes a cluster left by an earlier run, then starts its own, and stops
//! it at the end. The cluster names are reserved for tests, so that clusters of a developer are not affected.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::charts;
use super::on_host::{cargo, show};
use crate::cluster::engine::Engine;
use crate::cluster::{Cluster, Mode, Options, Way, With, verify};
use crate::image;
use crate::tools::{go, repository};

/// Name of the cluster of [`api`].
const API_CLUSTER: &str = "fleet-test-api";
/// Name of the second cluster of [`api`], into which a fleet is restored.
const EMPTY_CLUSTER: &str = "fleet-test-empty";
/// Name of the cluster of [`end_to_end`].
const E2E_CLUSTER: &str = "fleet-test";

/// Name of the cluster of [`upgrade`].
const UPGRADE_CLUSTER: &str = "fleet-test-upgrade";

/// Rounds of [`rounds`].
const LONG_ROUNDS: u32 = 200;
/// Name of the cluster of [`kind`].
const KIND_CLUSTER: &str = "fleet-test-kind";
/// Name of the docker engine of [`kind`].
const KIND_ENGINE: &str = "fleet-test-engine";

/// Environment variable in which test binaries expect the path of the kubeconfig.
const KUBECONFIG: &str = "MCP_FLEET_TEST_KUBECONFIG";
/// The same for the second cluster of [`api`].
const EMPTY_KUBECONFIG: &str = "MCP_FLEET_TEST_EMPTY_KUBECONFIG";

/// Environment variable in which test binaries expect the path of what [`charts::write_operator`] writes.
const CHART: &str = "MCP_FLEET_TEST_CHART";

/// Tests the API and the controllers against a real etcd and API server. The operator there has the rights of the chart.
pub fn api() -> Result<()> {
    let chart = charts::write_operator()?;
    on_own_cluster(API_CLUSTER, None, |cluster| {
        on_own_cluster(EMPTY_CLUSTER, None, |empty| {
            let restore =
                ["test", "--package", "mcp-fleet-operator", "--features", "restore-tests", "--test", "restore"];
            let mut tests = cargo(&restore);
            tests.env(KUBECONFIG, cluster.kubeconfig()).env(EMPTY_KUBECONFIG, empty.kubeconfig());
            show(tests.env(CHART, &chart))
        })
    })?;
    // A new cluster: the tenant of that test would get in the way of other tests.
    on_own_cluster(API_CLUSTER, None, |cluster| {
        let mut tests = cargo(&["test", "--package", "mcp-fleet-crds", "--package", "mcp-fleet-operator"]);
        tests.args(["--features", "mcp-fleet-crds/cluster-tests,mcp-fleet-operator/cluster-tests"]);
        tests.args(["--test", "admission", "--test", "cluster"]);
        show(tests.env(KUBECONFIG, cluster.kubeconfig()).env(CHART, &chart))
    })
}

/// The tests after the demo, in their order.
const END_TO_END: &[&str] = &["configuration", "faults", "http_sources", "limits", "public_name", "replicas", "rounds"];

/// Checks the network features that the product's isolation relies on, runs the demo, and then runs the fault tests on
/// the cluster that the demo set up.
pub fn end_to_end(with: Option<With>) -> Result<()> {
    on_own_cluster(E2E_CLUSTER, Some(Way::of_tests(with)), |cluster| {
        if cluster.mode() == Mode::Kind {
            println!(
                "skipped the checks of Services, DNS and NetworkPolicies: they need the packaged node, and this is kind"
            );
        } else {
            verify::run(cluster)?;
        }
        after_demo(cluster, END_TO_END, None)
    })
}

/// Runs many rounds of random faults on the cluster that the demo sets up.
pub fn rounds(with: Option<With>) -> Result<()> {
    on_own_cluster(E2E_CLUSTER, Some(Way::of_tests(with)), |cluster| {
        after_demo(cluster, &["rounds"], Some(LONG_ROUNDS))
    })
}

/// Runs the demo, and then tests of faults.
fn after_demo(cluster: &Cluster, tests: &[&str], rounds: Option<u32>) -> Result<()> {
    let with = if cluster.mode() == Mode::Kind { "kind" } else { "node" };
    let mut demo = Command::new(xtask()?);
    show(demo.args(["demo", "--keep", "--release", "--name", E2E_CLUSTER, "--with", with]).current_dir(repository()))?;
    let mut arguments = vec!["test", "--package", "mcp-fleet-e2e", "--features", "cluster-tests"];
    arguments.extend(tests.iter().flat_map(|test| ["--test", test]));
    // Build on the host, which can download crates, and run in the cluster's network.
    show(cargo(&arguments).arg("--no-run"))?;
    let mut command = cluster.command("cargo")?;
    command.args(&arguments).args(["--", "--test-threads", "1", "--nocapture"]).current_dir(repository());
    if let Some(rounds) = rounds {
        command.env("MCP_FLEET_FAULT_ROUNDS", rounds.to_string());
    }
    show(command.env(KUBECONFIG, cluster.kubeconfig()).env("MCP_FLEET_TEST_CLUSTER", E2E_CLUSTER))
}

/// Tests that this version works together with an earlier commit, while operators, gateways and shims are replaced one
/// after the other, in both directions.
pub fn upgrade(with: Option<With>) -> Result<()> {
    on_own_cluster(UPGRADE_CLUSTER, Some(Way::of_tests(with)), |cluster| {
        let earlier = image::earlier::build(cluster.builder())?;
        let mut archives = earlier.archives;
        for image in [&image::OPERATOR, &image::MCP_POD, &image::SERVER_TIME] {
            archives.push(image::build(image, cluster.builder())?);
        }
        for archive in &archives {
            cluster.load_image(archive)?;
        }
        // Build on the host, which can download crates, and run in the cluster's network.
        let upgrade = ["test", "--package", "mcp-fleet-e2e", "--features", "upgrade-tests", "--test", "upgrade"];
        show(cargo(&upgrade).arg("--no-run"))?;
        let mut tests = cluster.command("cargo")?;
        tests.args(upgrade).args(["--", "--nocapture"]).current_dir(repository());
        tests.env(KUBECONFIG, cluster.kubeconfig()).env("MCP_FLEET_TEST_HELM", go::helm()?);
        tests.env("MCP_FLEET_TEST_CHARTS", repository().join("charts"));
        show(tests.env("MCP_FLEET_TEST_EARLIER_CHARTS", earlier.source.join("charts")))
    })
}

/// Runs the demo on kind, in a docker engine of its own, with a node image from packages.
pub fn kind() -> Result<()> {
    let engine = Engine::up(KIND_ENGINE)?;
    let node = image::KIND_NODE.reference;
    let demo = ["demo", "--with", "kind", "--kind-image", node, "--name", KIND_CLUSTER];
    let result = show(engine.command(xtask()?).args(demo).current_dir(repository()));
    Engine::down(KIND_ENGINE)?;
    // The demo deletes its cluster; after a crash, the node is gone with the engine, and files remain.
    Cluster::down(KIND_CLUSTER)?;
    result
}

fn xtask() -> Result<PathBuf> {
    env::current_exe().context("failed to find the path of this program")
}

/// Runs `tests` on a new cluster, and stops the cluster afterwards. Without a way to run pods, it is only an API server.
fn on_own_cluster(name: &str, way: Option<Way>, tests: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    Cluster::down(name)?;
    let apiserver_only = way.is_none();
    let cluster = Cluster::up(&Options { name: name.to_owned(), apiserver_only, way: way.unwrap_or_default() })?;
    let result = tests(&cluster);
    if result.is_err() {
        print_state(&cluster);
    }
    Cluster::down(name)?;
    result
}

/// Prints what a cluster knows of its nodes and pods, which is gone with it. An API server alone has neither.
fn print_state(cluster: &Cluster) {
    if cluster.mode() == Mode::ApiServer {
        return;
    }
    let conditions =
        "jsonpath={range .items[*].status.conditions[*]}{.type}={.status} {.reason}: {.message}{\"\\n\"}{end}";
    for arguments in [
        &["get", "nodes", "--output", conditions][..],
        &["get", "pods", "--all-namespaces", "--output=wide"],
        &["get", "events", "--all-namespaces", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"],
    ] {
        println!("--- kubectl {} {}", arguments[0], arguments[1]);
        match cluster.kubectl(arguments) {
            Ok(output) => println!("{}", last_lines(&output, 40)),
            Err(error) => println!("failed: {error:#}"),
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
