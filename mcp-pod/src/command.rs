//! The command line of `mcp-pod`. `mcp-fleet try` has it too, under the name `mcp-pod`, so that it runs the same data plane.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{gateway, install, logging, shim};

#[derive(Debug, Parser)]
#[command(name = "mcp-pod", version, about = "The MCP Fleet data plane")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway of one tenant.
    Gateway(gateway::Args),
    /// Run a tool server in a sandbox and pass the gateway's calls to it.
    Shim(shim::Args),
    /// Copy this executable to PATH, for images without `cp`.
    Install {
        /// Path of the copy.
        path: PathBuf,
    },
    /// Enter the sandbox and execute the command there. Used by the shim.
    #[command(hide = true)]
    SandboxExec(shim::sandbox::Args),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Gateway(args) => {
            let _guard = logging::init();
            report(gateway::run(args))
        }
        Command::Shim(args) => {
            let _guard = logging::init();
            report(shim::run(args))
        }
        Command::Install { path } => report(install::install(&path).map_err(Into::into)),
        // The sandbox covers only the calling thread, so no other thread may have been started before.
        Command::SandboxExec(args) => shim::sandbox::exec(&args),
    }
}

/// Prints an error with its sources, and returns the exit code.
fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcp-pod: {error:#}");
            ExitCode::FAILURE
        }
    }
}
