//! `mcp-fleet audit …`

mod checkpoints;
mod export;
mod verify;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

/// `mcp-fleet audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that no audit line was removed, changed, added or moved. Exits with 1 if one was.
    Verify(verify::Arguments),
    /// Write the audit lines of logs as events for security tools. Exits with 1 if a line cannot be read.
    Export(export::Arguments),
}

/// Runs a command. Returns the exit code: 1 if something is wrong with the log.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify(arguments) => verify::run(arguments),
        Command::Export(arguments) => export::run(arguments),
    }
}

fn open(path: &Path) -> std::io::Result<BufReader<File>> {
    File::open(path).map(BufReader::new)
}
