//! `mcp-fleet audit …`

mod checkpoints;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

/// `mcp-fleet audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that no audit line was removed, changed, added or moved. Exits with 1 if one was.
    Verify(verify::Arguments),
}

/// Runs a command. Returns the exit code: 1 if something is wrong with the log.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify(arguments) => verify::run(arguments),
    }
}
