//! `cargo xtask bench`: builds release binaries of the gateway and the load generator, and runs the benchmark.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

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

/// Runs the benchmark.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { benchmark: Benchmark::Gateway(Gateway { quick, rounds, out }) } = arguments;
    let gateway = rust::static_binary("mcp-pod")?;
    let load = rust::static_binary("mcp-fleet-load")?;
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
    let status = command.status().context("failed to start the benchmark")?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}
