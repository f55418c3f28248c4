//! `mcp-fleet audit verify`

use std::io::stdin;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use mcp_fleet_audit::Verifier;

use super::{checkpoints, open};

/// `mcp-fleet audit verify …`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Logs of gateways, as `kubectl logs` prints them or as the container runtime stores them; standard input if there are
    /// none. Lines that are not audit lines are skipped.
    logs: Vec<PathBuf>,
    /// Checkpoints of the operator, which show whether the end of a log or a whole log is missing. See docs/audit.md.
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
    /// Accept that the first lines of a chain are missing, because old logs were deleted.
    #[arg(long)]
    partial: bool,
}

/// Verifies the logs, and prints what is wrong with them.
pub(crate) fn run(Arguments { logs, checkpoints, partial }: &Arguments) -> anyhow::Result<ExitCode> {
    let known = match checkpoints {
        Some(file) => {
            let text = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
            checkpoints::read(&text).with_context(|| format!("failed to read checkpoints from {}", file.display()))?
        }
        None => vec![],
    };
    let mut verifier = Verifier::new();
    let mut names = Vec::new();
    if logs.is_empty() {
        names.push("standard input".to_owned());
        verifier.read_log(0, stdin().lock()).context("failed to read standard input")?;
    }
    for (file, path) in logs.iter().enumerate() {
        names.push(path.display().to_string());
        open(path)
            .and_then(|log| verifier.read_log(file, log))
            .with_context(|| format!("failed to read {}", path.display()))?;
    }
    let report = verifier.finish(&known, *partial);
    for chain in &report.chains {
        println!("{chain}");
    }
    for problem in &report.problems {
        println!("PROBLEM {}", problem.describe(&names));
    }
    let (chains, problems) = (report.chains.len(), report.problems.len());
    println!("chains: {chains}, problems: {problems}");
    if known.is_empty() {
        println!("without checkpoints, nobody knows whether the end of a chain or a whole chain is missing");
    }
    Ok(ExitCode::from(u8::from(problems > 0)))
}
