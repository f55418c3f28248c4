//! `mcp-fleet`: the command line of MCP Fleet. As `kubectl-mcp_fleet` on the path it is also `kubectl mcp-fleet`.

mod audit;

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
    /// Work with audit logs of gateways.
    #[command(subcommand)]
    Audit(audit::Command),
}

fn main() -> ExitCode {
    let Command::Audit(command) = Arguments::parse().command;
    match audit::run(&command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
