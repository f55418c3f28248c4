//! The benchmark: its plan and its sequence of measurements.
//!
//! [`testbed`] starts the processes, [`compare`] runs the interleaved rounds, [`memory`] and [`ready`] measure a new
//! gateway, and [`report`] formats the results.

mod awake;
mod compare;
mod memory;
mod ready;
mod report;
mod testbed;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::process::file_size;
use awake::Awake;
use testbed::Testbed;

/// `mcp-fleet-load gateway …`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure for one minute instead of five: enough to notice a large change, not enough to publish figures.
    #[arg(long)]
    quick: bool,
    /// Number of interleaved rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Path of the gateway's binary; by default `mcp-pod` in the folder of this program.
    #[arg(long)]
    mcp_pod: Option<PathBuf>,
    /// Also write the report to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of interleaved rounds.
    pub(crate) rounds: usize,
    /// Duration of one measurement.
    pub(crate) slot: Duration,
    /// Number of gateway starts for the time until ready.
    pub(crate) starts: usize,
}

/// Runs all measurements and prints the report.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let Args { quick, rounds, mcp_pod, out } = args;
    let mut plan = if *quick {
        Plan { rounds: 3, slot: Duration::from_millis(400), starts: 3 }
    } else {
        Plan { rounds: 10, slot: Duration::from_secs(1), starts: 10 }
    };
    plan.rounds = rounds.unwrap_or(plan.rounds).max(1);
    let mcp_pod = match mcp_pod {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.parent().context("the path of this program has no folder")?.join("mcp-pod"),
    };
    let awake = Awake::keep();
    let started = Instant::now();
    let size = file_size(&mcp_pod)?;
    let mut testbed = Testbed::start(&mcp_pod).await?;
    progress(started, "comparing direct calls, pass-through and gateway");
    let table = compare::run(&mut testbed, plan, |text| progress(started, text)).await?;
    let (made, spent) = testbed.settled().await;
    ensure!(made == spent, "the calls cost {made} millionths, but the gateways reported {spent} as spent");
    progress(started, "measuring memory after 10,000 calls in 1,000 sessions");
    let memory = memory::measure(&testbed).await?;
    progress(started, "measuring the time from start until ready");
    let ready = ready::measure(&testbed, plan.starts).await?;
    let text =
        report::render(&report::Report { plan, processors: awake.describe(), table, memory, ready, size, spent });
    if let Some(out) = out {
        std::fs::write(out, &text).with_context(|| format!("failed to write {}", out.display()))?;
    }
    println!("{text}");
    Ok(())
}

fn progress(started: Instant, text: &str) {
    eprintln!("[{:>4} s] {text}", started.elapsed().as_secs());
}
