//! Tests that need no cluster.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::{command, go, repository};

/// Formatting, clippy, generated files.
pub fn lint() -> Result<()> {
    show(cargo(&["fmt", "--all", "--check"]))?;
    show(cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"]))?;
    show(cargo(&["xtask", "crds", "--check"]))
}

/// Everything that `cargo test` runs without a cluster.
pub fn unit() -> Result<()> {
    show(cargo(&["test", "--workspace"]))
}

/// The Go programs of the local cluster that are ours.
pub fn tools() -> Result<()> {
    let module = repository().join("tests/cluster");
    for task in ["vet", "test"] {
        show(Command::new("go").args([task, "./netpol/..."]).current_dir(&module).env("CGO_ENABLED", "0"))?;
    }
    Ok(())
}

/// Both charts, as strictly as helm can look at them without a cluster; the demo installs them.
pub fn charts() -> Result<()> {
    let helm = go::helm()?;
    for chart in ["mcp-fleet-crds", "mcp-fleet"] {
        let chart = repository().join("charts").join(chart);
        show(Command::new(&helm).args(["lint", "--strict"]).arg(&chart))?;
        let template = |more: &[&str]| {
            let arguments = ["template", "check", "--kube-version", "1.35.0"];
            command::output(Command::new(&helm).args(arguments).args(more).arg(&chart))
        };
        let rendered = template(&[])?;
        if rendered.lines().any(|line| line.contains("[\"*\"]") || line.contains("- '*'") || line.contains("- \"*\"")) {
            bail!("{} grants something by a wildcard", chart.display());
        }
        if template(&["--set", "unknown=1"]).is_ok() {
            bail!("{} takes a value that it does not know", chart.display());
        }
    }
    Ok(())
}

/// Advisories and licences.
pub fn supply() -> Result<()> {
    if command::run(&mut cargo(&["deny", "--version"])).is_err() {
        bail!("cargo-deny is missing: `cargo install --locked cargo-deny`");
    }
    show(cargo(&["deny", "check", "bans", "licenses", "sources"]))
}

/// The benchmark, so that it does not rot; its figures are for reading, not for passing or failing.
pub fn bench() -> Result<()> {
    show(cargo(&["xtask", "bench", "gateway", "--quick"]))
}

/// A cargo command in the repository.
pub(super) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(repository());
    command
}

/// Runs a command with its output shown as it comes.
pub(super) fn show(mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    let command = command.borrow_mut();
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!("{} {}", command.get_program().display(), words.join(" "));
    println!("$ {line}");
    let status = command.status().with_context(|| format!("failed to start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}
