//! `gateway`: the comparison, its plan and its report.
//!
//! [`stage`] starts the processes, [`compare`] runs the interleaved rounds, [`memory`] and [`ready`] look at a gateway
//! alone, [`report`] prints what came of it.

mod awake;
mod compare;
mod memory;
mod ready;
mod report;
mod stage;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::process::file_size;
use awake::Awake;
use stage::Stage;

/// How much to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A minute of measuring instead of five: enough to see a large change, not to publish.
    #[arg(long)]
    quick: bool,
    /// Interleaved rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// The gateway's binary; default: `mcp-pod` beside this program.
    #[arg(long)]
    mcp_pod: Option<PathBuf>,
    /// Also write the report to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The plan that follows from the arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Interleaved rounds.
    pub(crate) rounds: usize,
    /// Length of one measurement.
    pub(crate) slot: Duration,
    /// Starts of the gateway whose time to readiness is taken.
    pub(crate) starts: usize,
}

/// Runs everything, prints the report.
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
        None => std::env::current_exe()?.parent().context("no directory")?.join("mcp-pod"),
    };
    let awake = Awake::keep();
    let started = Instant::now();
    let size = file_size(&mcp_pod)?;
    let mut stage = Stage::set(&mcp_pod).await?;
    progress(started, "comparing");
    let table = compare::run(&mut stage, plan, |text| progress(started, text)).await?;
    let (made, spent) = stage.settled().await;
    ensure!(made == spent, "the gateways were paid for {made} millionths of calls but reported {spent}");
    progress(started, "memory after 10,000 calls in 1,000 sessions");
    let memory = memory::measure(&stage).await?;
    progress(started, "time to readiness");
    let ready = ready::measure(&stage, plan.starts).await?;
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
