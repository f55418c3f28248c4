//! `cargo xtask demo`: shows MCP Fleet at work on a real cluster, step by step, with the evidence of each step.
//!
//! [`steps`] lists the steps in order: start reading there.

mod agent;
mod report;
mod state;
mod steps;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use self::report::Report;
use self::state::Demo;
use crate::cluster::{Cluster, Way};
use crate::tools::progress;

/// `cargo xtask demo …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the cluster. The demo starts from nothing: a running cluster of this name is removed first.
    #[arg(long, default_value = "fleet-demo")]
    name: String,
    /// Write `{"steps": [{"name", "ok", "evidence"}]}` to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keep the cluster running at the end, and print commands to explore it.
    #[arg(long)]
    keep: bool,
    /// Repeat the checks on a cluster that an earlier run kept, without setting it up. Money spent earlier stays spent.
    #[arg(long)]
    resume: bool,
    /// How many times to measure revocation and policy changes. The slowest measurement counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    trials: u32,
    /// Use the product as it is released. By default it is built with less optimisation, in a fraction of the time.
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    way: Way,
}

/// Runs the demo. Fails if a step failed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let setup = if arguments.resume { steps::RESUME } else { steps::SETUP };
    let total = setup.len() + steps::CHECKS.len();
    let mut report = Report::new(total);
    let mut demo = Demo::new(&arguments.name);
    demo.trials = arguments.trials;
    demo.way = arguments.way.clone();
    demo.release = arguments.release;
    print_introduction(arguments, total);
    if arguments.resume {
        demo.set_cluster(Cluster::open(&arguments.name)?);
    }
    let start = Instant::now();
    let mut first_call = None;
    let mut is_set_up = true;
    for step in setup {
        if is_set_up {
            is_set_up = report.run(step, &mut demo);
        } else {
            report.skip(step, NOT_SET_UP);
        }
    }
    for step in steps::CHECKS {
        if is_set_up {
            if report.run(step, &mut demo) {
                first_call.get_or_insert_with(|| start.elapsed());
            }
        } else {
            report.skip(step, NOT_SET_UP);
        }
    }
    // A failed start of the cluster leaves the build running.
    let _ = demo.finish_images();
    report.print_summary();
    if let Some(after) = first_call {
        println!("the first request of an agent was answered {:.0} s after the start", after.as_secs_f32());
    }
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    if arguments.keep || arguments.resume {
        print_hints(&arguments.name);
    } else {
        progress::note(format!("removing cluster {} (`cargo xtask demo --keep` would keep it)", arguments.name));
        Cluster::down(&arguments.name)?;
    }
    match report.failed() {
        0 => Ok(()),
        failed => bail!("{failed} of {total} steps failed"),
    }
}

const NOT_SET_UP: &str = "not run, because an earlier step of the setup failed";

fn print_introduction(arguments: &Arguments, steps: usize) {
    let name = &arguments.name;
    println!(
        "MCP Fleet demo: {steps} steps on a real Kubernetes cluster named {name}.\n\n\
         Two tenants run MCP servers for AI agents: acme has a file server (files) and a time server (clock), and\n\
         beta has its own clock. Agents call tools as principals with different rights: acme's reader, writer,\n\
         nightly and intern, and beta's planner. Each step does one thing, checks it, and prints the evidence.\n"
    );
    if !arguments.resume {
        println!(
            "The first run builds Kubernetes and all images, which takes ten to thirty minutes, depending on the machine. Later\n\
             runs reuse them."
        );
    }
}

fn print_hints(name: &str) {
    println!("\nThe cluster {name} is still running. Commands to explore it:");
    for (purpose, command) in [
        ("list all MCP Fleet objects", "kubectl get mcp -A"),
        ("read the audit lines of acme's gateway", "kubectl -n acme-mcp logs deploy/gateway"),
        ("see what a principal may do", "kubectl -n acme describe mcpp reader"),
        ("open a shell in acme's agent pod", "kubectl -n acme exec -it agent -- sh"),
        ("stop and remove the cluster", "down"),
    ] {
        println!("  # {purpose}\n  cargo xtask cluster --name {name} {command}");
    }
}
