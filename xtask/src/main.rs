//! `cargo xtask`: every task of this repository, for developers and for CI. `cargo xtask help` lists them.

// A binary exports nothing, so `pub` only marks what other modules use.
#![allow(unreachable_pub)]

mod bench;
mod cluster;
mod crds;
mod demo;
mod image;
mod servers;
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
    /// Measure what the gateway adds to a call, or how the operator copes with a large fleet.
    Bench(bench::Arguments),
    /// Run a real Kubernetes on this machine: kind where docker runs, otherwise the packaged node.
    Cluster(cluster::cli::Arguments),
    /// Generate the API's YAML (`crds/yaml` and the CRD chart) from its Rust types.
    Crds(crds::Arguments),
    /// Show MCP Fleet at work on a real cluster, step by step.
    Demo(demo::Arguments),
    /// Build container images as archives.
    Image(image::cli::Arguments),
    /// Generate the table of the tested servers and their settings in `docs/servers.md`.
    Servers(servers::Arguments),
    /// Run every test except the slow ones, or one part of the tests.
    Test(test::Arguments),
    /// Run the supervisor of a cluster inside its namespaces. `cluster up` starts it.
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
        Task::Servers(arguments) => servers::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Supervise { plan } => cluster::supervisor::run(&plan),
    }
}
