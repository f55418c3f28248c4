//! The one entry for people and CI: `cargo xtask help` lists the tasks.

// A program has no outside, so `pub` is short for "used by other modules".
#![allow(unreachable_pub)]

mod bench;
mod cluster;
mod crds;
mod demo;
mod image;
mod test;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Tasks of the MCP Fleet repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// What the gateway costs, beside calls without it.
    Bench(bench::Arguments),
    /// A real Kubernetes on this machine: kind where docker runs, else a node of our own.
    Cluster(cluster::cli::Arguments),
    /// The API's YAML from its Rust types: `crds/yaml` and the chart.
    Crds(crds::Arguments),
    /// The whole idea at work on a real cluster, step by step.
    Demo(demo::Arguments),
    /// Build container images as archives.
    Image(image::cli::Arguments),
    /// Every test but the long ones, or one part of them.
    Test(test::Arguments),
    /// What runs inside a cluster's namespaces; `cluster up` starts it.
    #[command(hide = true, name = cluster::SUPERVISE)]
    Supervise {
        /// The cluster's plan.
        plan: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Cluster(arguments) => cluster::cli::run(arguments),
        Task::Crds(arguments) => crds::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Image(arguments) => image::cli::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Supervise { plan } => cluster::supervisor::run(&plan),
    }
}
