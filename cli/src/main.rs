//! `mcp-fleet`: the command line of MCP Fleet. As `kubectl-mcp_fleet` on the path it is also `kubectl mcp-fleet`.
//!
//! `mcp-fleet try` starts this program again, as `mcp-pod` and for the steps of an enclosure.

mod audit;
mod example_server;
mod local;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line of MCP Fleet.
#[derive(Debug, Parser)]
#[command(name = "mcp-fleet", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the objects in YAML files on this machine, without Kubernetes.
    Try(local::Arguments),
    /// Work with audit logs of gateways.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Keep notes in a folder, as an MCP server over stdio: the server of the example of `try`.
    ExampleServer(example_server::Arguments),
    #[command(hide = true, name = local::enclosure::OUTER)]
    Enclose(local::enclosure::Arguments),
    #[command(hide = true, name = local::enclosure::INNER)]
    Enclosed(local::enclosure::Arguments),
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == mcp_pod::NAME) {
        return match local::lifetime::die_with_parent() {
            Ok(()) => mcp_pod::command::run(),
            Err(error) => fail(&error),
        };
    }
    let done = match Arguments::parse().command {
        Command::Try(arguments) => local::run(&arguments),
        Command::Audit(command) => audit::run(&command),
        Command::ExampleServer(arguments) => example_server::run(&arguments),
        Command::Enclose(arguments) => Ok(local::enclosure::run_outer(&arguments)),
        Command::Enclosed(arguments) => Ok(local::enclosure::run_inner(&arguments)),
    };
    done.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(2)
}
