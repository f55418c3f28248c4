//! `cargo xtask bench`: builds release binaries, and runs the benchmark of the gateway or of the operator. Judges the
//! loop detector by recorded traces.

mod loops;

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cluster::{Cluster, Options, Way};
use crate::test::charts;
use crate::tools::rust;

/// `cargo xtask bench …`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, clap::Subcommand)]
enum Benchmark {
    /// Compare calls made directly, through a pass-through proxy, and through the gateway with a full policy. Takes
    /// about six minutes after the build.
    Gateway(Gateway),
    /// Let the operator converge a fleet on etcd and an API server alone, and compare it with bare writes of the same
    /// objects. Takes some minutes after the build, and more for a larger fleet.
    Fleet(Fleet),
    /// Replay traces of agents through the loop detector, and show how often it is right.
    Loops(loops::Arguments),
}

#[derive(Debug, clap::Args)]
struct Gateway {
    /// Measure for one minute only: enough to notice a large change, not enough to publish figures.
    #[arg(long)]
    quick: bool,
    /// Number of interleaved rounds; 10 by default.
    #[arg(long)]
    rounds: Option<usize>,
    /// Also write the report to this file.
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Fleet {
    /// Number of tenants.
    #[arg(long, default_value_t = 100)]
    tenants: usize,
    /// Servers of each tenant.
    #[arg(long, default_value_t = 10)]
    servers: usize,
    /// Scopes of each tenant.
    #[arg(long, default_value_t = 10)]
    scopes: usize,
    /// Principals of each tenant.
    #[arg(long, default_value_t = 10)]
    principals: usize,
    /// Minutes that the fleet may take to converge.
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Measure only how the fleet converges.
    #[arg(long)]
    converge_only: bool,
    /// Binary of the operator, instead of a release build of this source.
    #[arg(long)]
    operator: Option<std::path::PathBuf>,
    /// Also write the report to this file.
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

/// Name of the cluster of [`fleet`]. It is reserved for the benchmark.
const FLEET_CLUSTER: &str = "fleet-bench";

/// Runs the benchmark.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.benchmark {
        Benchmark::Gateway(arguments) => gateway(arguments),
        Benchmark::Fleet(arguments) => fleet(arguments),
        Benchmark::Loops(arguments) => loops::run(arguments),
    }
}

fn gateway(Gateway { quick, rounds, out }: &Gateway) -> Result<()> {
    let gateway = rust::static_binary("mcp-pod", rust::Profile::Release)?;
    let load = rust::static_binary("mcp-fleet-load", rust::Profile::Release)?;
    let mut command = Command::new(load);
    command.args(["gateway", "--mcp-pod"]).arg(gateway);
    if *quick {
        command.arg("--quick");
    }
    if let Some(rounds) = rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(out) = out {
        command.arg("--out").arg(out);
    }
    show(&mut command)
}

/// Runs the benchmark of the operator on its own cluster, and removes the cluster.
fn fleet(arguments: &Fleet) -> Result<()> {
    let Fleet { tenants, servers, scopes, principals, limit, converge_only, operator, out } = arguments;
    let operator = match operator {
        Some(operator) => operator.clone(),
        None => rust::static_binary("mcp-fleet-operator", rust::Profile::Release)?,
    };
    let load = rust::static_binary("mcp-fleet-load", rust::Profile::Release)?;
    Cluster::down(FLEET_CLUSTER)?;
    let cluster = Cluster::up(&Options { name: FLEET_CLUSTER.to_owned(), apiserver_only: true, way: Way::default() })?;
    let chart = charts::write_operator()?;
    let mut command = Command::new(load);
    command
        .args(["fleet", "--chart"])
        .arg(chart)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .arg("--operator")
        .arg(operator);
    for (name, value) in [("tenants", tenants), ("servers", servers), ("scopes", scopes), ("principals", principals)] {
        command.args([format!("--{name}"), value.to_string()]);
    }
    command.args(["--limit", &limit.to_string()]);
    if *converge_only {
        command.arg("--converge-only");
    }
    if let Some(out) = out {
        command.arg("--out").arg(out);
    }
    let result = show(&mut command);
    Cluster::down(FLEET_CLUSTER)?;
    result
}

fn show(command: &mut Command) -> Result<()> {
    let status = command.status().context("failed to start the benchmark")?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}
