//! Benchmark of the operator: how fast a fleet converges on etcd and an API server alone, and what that costs.
//!
//! No kubelet and no controller manager run. [`cluster_side`] does what they would do, and [`gateway`] acknowledges
//! policies like a gateway. [`phases`] is the sequence of measurements.

mod api;
mod bare;
mod cluster_side;
mod gateway;
mod objects;
mod operator;
mod phases;
mod report;
mod tracker;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

/// `mcp-fleet-load fleet …`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Kubeconfig of an API server that nothing else uses. The benchmark leaves its objects behind.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Binary of the operator.
    #[arg(long)]
    operator: PathBuf,
    /// The objects with which the operator's chart configures the API server, as a JSON array.
    #[arg(long)]
    chart: PathBuf,
    #[command(flatten)]
    size: Size,
    /// Minutes that the fleet may take to converge. The benchmark fails if it takes longer.
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Leave out the measurements after convergence: idle, changes, restart and failover.
    #[arg(long)]
    converge_only: bool,
    /// Also write the report to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How large the fleet is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Size {
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
}

/// Runs all measurements and prints the report.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let Size { tenants, servers, scopes, principals } = args.size;
    ensure!(tenants >= 2 && servers >= 1 && scopes >= 1 && principals >= 1, "at least 2 tenants with 1 of each kind");
    let report = phases::run(args).await?;
    let text = report.render();
    if let Some(out) = &args.out {
        std::fs::write(out, &text).with_context(|| format!("failed to write {}", out.display()))?;
    }
    println!("{text}");
    Ok(())
}
