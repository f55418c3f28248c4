//! `bench`: builds what is measured as it is released, and measures it.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::rust;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Calls made directly, through a pass-through proxy, and through the gateway with full policy: about six minutes
    /// after the build.
    Gateway(Gateway),
}

#[derive(Debug, clap::Args)]
struct Gateway {
    /// One minute: enough to see a large change, not to publish.
    #[arg(long)]
    quick: bool,
    /// Interleaved rounds; 10 if not given.
    #[arg(long)]
    rounds: Option<usize>,
    /// Also write the report to this file.
    #[arg(long)]
    out: Option<std::path::PathBuf>,
}

/// Runs a bench.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { what: What::Gateway(Gateway { quick, rounds, out }) } = arguments;
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
    let status = command.status().context("failed to start the bench")?;
    if !status.success() {
        bail!("the bench failed: {status}");
    }
    Ok(())
}
