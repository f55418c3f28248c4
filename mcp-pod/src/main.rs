//! `mcp-pod`: the data plane in one static binary.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mcp_pod::{install, shim};

#[derive(Debug, Parser)]
#[command(name = "mcp-pod", version, about = "The MCP Fleet data plane")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy this executable to PATH, for images that have no `cp`.
    Install {
        /// Where to.
        path: PathBuf,
    },
    /// Enter the sandbox and become the command; started by the shim.
    #[command(hide = true)]
    SandboxExec(shim::sandbox::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Install { path } => report(install::install(&path).map_err(Into::into)),
        // Nothing may have started a thread before this.
        Command::SandboxExec(args) => shim::sandbox::exec(&args),
    }
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcp-pod: {error:#}");
            ExitCode::FAILURE
        }
    }
}
