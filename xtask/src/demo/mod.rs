//! `cargo xtask demo`: the whole idea at work on a real cluster, step by step, each with what came back.

mod agent;
mod report;
mod stage;
mod steps;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use self::report::Report;
use self::stage::Stage;
use crate::cluster::Cluster;

/// `cargo xtask demo …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// The cluster's name. One of this name that is up is taken down first: the demo starts from nothing.
    #[arg(long, default_value = "fleet-demo")]
    name: String,
    /// Writes `{"steps": [{"name", "ok", "evidence"}]}` into this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Leaves the cluster up, and prints commands to try.
    #[arg(long)]
    keep: bool,
    /// Takes the cluster that an earlier run kept, and shows the steps again; what was spent by then stays spent.
    #[arg(long)]
    resume: bool,
    /// How often revocation and policy change are timed; the slowest counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    trials: u32,
}

/// Runs the demo; an error if a step failed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut report = Report::default();
    let mut stage = Stage::new(&arguments.name);
    stage.trials = arguments.trials;
    let mut stands = true;
    if arguments.resume {
        stage.set_cluster(Cluster::open(&arguments.name)?);
    }
    for step in if arguments.resume { steps::RESUME } else { steps::SETUP } {
        if stands {
            stands = report.run(step, &mut stage);
        } else {
            report.skip(step, "not tried: the stage does not stand");
        }
    }
    for step in steps::SHOW {
        if stands {
            report.run(step, &mut stage);
        } else {
            report.skip(step, "not tried: the stage does not stand");
        }
    }
    report.summarise();
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    if arguments.keep || arguments.resume {
        print_hints(&arguments.name);
    } else {
        Cluster::down(&arguments.name)?;
    }
    match report.failed() {
        0 => Ok(()),
        failed => bail!("{failed} steps failed"),
    }
}

fn print_hints(name: &str) {
    println!("\nThe cluster {name} stays up. To look around:");
    for hint in [
        format!("cargo xtask cluster --name {name} kubectl get mcp -A"),
        format!("cargo xtask cluster --name {name} kubectl -n acme-mcp logs deploy/gateway"),
        format!("cargo xtask cluster --name {name} kubectl -n acme describe mcpp reader"),
        format!("cargo xtask cluster --name {name} kubectl -n acme exec -it agent -- sh"),
        format!("cargo xtask cluster down --name {name}"),
    ] {
        println!("  {hint}");
    }
}
