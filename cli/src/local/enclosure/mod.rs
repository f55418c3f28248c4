//! What a pod is in a cluster: a tool server with its shim, in a file system and a process table of their own.
//!
//! A machine that people work on has their files on its root file system, where a container has only its image. So the
//! server gets a root file system that consists of what it may read: system folders, folders that the user names, its
//! workspace at its mount path, and an empty `/tmp`. User namespaces allow that without privileges.
//!
//! There are two steps, each a process of its own. [`outer`] leaves the namespaces of the user, and stays as the parent of
//! [`inner`], which is process 1 of the new process table. It makes the file system and then becomes the shim. When the
//! process that started them ends, the kernel kills both, and with process 1 everything that it started.

mod inner;
mod outer;
mod plan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) use plan::{Files, OWN_PROGRAM, Plan, Scratch, is_in_system};

/// Name of the first step on the command line.
pub(crate) const OUTER: &str = "try-enclose";
/// Name of the second step on the command line.
pub(crate) const INNER: &str = "try-enclosed";
/// Exit status if the enclosure cannot be made.
const EXIT_NO_ENCLOSURE: u8 = 125;

/// Command line of both steps.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File with the plan.
    plan: PathBuf,
    /// Process that must live for this one to live.
    parent: u32,
}

/// Returns the command line of the first step, as a child of this process.
pub(crate) fn command_line(plan: &Path) -> [String; 3] {
    [OUTER.to_owned(), plan.to_string_lossy().into_owned(), std::process::id().to_string()]
}

/// Runs the first step. No other thread may have been started in this process.
pub(crate) fn run_outer(arguments: &Arguments) -> ExitCode {
    report(outer::run(arguments))
}

/// Runs the second step. Returns only if it failed.
pub(crate) fn run_inner(Arguments { plan, parent }: &Arguments) -> ExitCode {
    report(Plan::take(plan).and_then(|plan| inner::run(&plan, *parent)))
}

fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("mcp-fleet try: {error:#}");
        ExitCode::from(EXIT_NO_ENCLOSURE)
    })
}
