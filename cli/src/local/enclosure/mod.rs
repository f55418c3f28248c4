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

use std::process::ExitCode;

pub(crate) use plan::{OWN_PROGRAM, Plan, is_in_system};

/// Name of the first step on the command line.
pub(crate) const OUTER: &str = "try-enclose";
/// Name of the second step on the command line.
pub(crate) const INNER: &str = "try-enclosed";
/// Exit status if the enclosure cannot be made.
const EXIT_NO_ENCLOSURE: u8 = 125;

/// Runs the first step. No other thread may have been started in this process.
pub(crate) fn run_outer(plan: &str) -> ExitCode {
    report(parse(plan).and_then(|plan| outer::run(&plan)))
}

/// Runs the second step. Returns only if it failed.
pub(crate) fn run_inner(plan: &str) -> ExitCode {
    report(parse(plan).and_then(|plan| inner::run(&plan)))
}

fn parse(plan: &str) -> anyhow::Result<Plan> {
    Ok(serde_json::from_str(plan)?)
}

fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("mcp-fleet try: {error:#}");
        ExitCode::from(EXIT_NO_ENCLOSURE)
    })
}
