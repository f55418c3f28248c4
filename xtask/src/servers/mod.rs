//! The MCP servers of `tests/servers`: what they are, how they are installed, and the table of their settings in the documentation.

pub mod install;
mod package;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::tools::repository;

/// The page with the table.
const PAGE: &str = "docs/servers.md";

/// `cargo xtask servers …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write nothing, and fail if the table differs from what would be generated.
    #[arg(long)]
    check: bool,
}

/// Writes the table of settings, or compares it with what is committed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let path = repository().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("failed to read {PAGE}"))?;
    let wanted = table::replace(&page, &table::render(&names()?)?)?;
    if page == wanted {
        return Ok(());
    }
    if arguments.check {
        bail!("the table of servers in {PAGE} is out of date; run `cargo xtask servers` and commit the result");
    }
    fs::write(&path, wanted).with_context(|| format!("failed to write {PAGE}"))?;
    println!("updated {PAGE}");
    Ok(())
}

/// Returns the folder of all servers.
fn folder() -> PathBuf {
    repository().join("tests/servers")
}

/// Returns the names of the servers in order: of the folders with a `server.yaml`.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder()).context("failed to read tests/servers")? {
        let path = entry?.path();
        if path.join("server.yaml").is_file() {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}
