//! Tests that need no cluster.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::{command, go, repository};

/// Checks formatting, clippy, generated files, and what `mcp-fleet try` is built from.
pub fn lint() -> Result<()> {
    show(cargo(&["fmt", "--all", "--check"]))?;
    show(cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"]))?;
    show(cargo(&["xtask", "crds", "--check"]))?;
    show(cargo(&["xtask", "servers", "--check"]))?;
    without_api_client()
}

/// Checks that the command line is built without the client of the API server, which is a quarter of a newcomer's first build.
fn without_api_client() -> Result<()> {
    let mut tree = cargo(&["tree", "--package", "mcp-fleet", "--edges", "normal,build", "--prefix", "none"]);
    let tree = command::output(&mut tree)?;
    match tree.lines().find(|line| line.starts_with("kube-client ")) {
        Some(line) => {
            bail!("mcp-fleet depends on {line}: `cargo tree --package mcp-fleet --invert kube-client` says how")
        }
        None => Ok(()),
    }
}

/// Runs every `cargo test` that needs no cluster.
pub fn unit() -> Result<()> {
    show(cargo(&["test", "--workspace"]))
}

/// Vets and tests the Go programs of the local cluster that this repository contains.
pub fn tools() -> Result<()> {
    let module = repository().join("tests/cluster");
    for task in ["vet", "test"] {
        show(go::go()?.args([task, "./netpol/..."]).current_dir(&module))?;
    }
    Ok(())
}

/// Runs the longer runs of the models of the ledger and of homes, and the ledger's random fault rounds.
pub fn governors() -> Result<()> {
    let ignored = ["--", "--ignored", "--nocapture", "--test-threads", "1"];
    for tests in [
        ["test", "--package", "mcp-fleet-ledger", "--test", "model"].as_slice(),
        ["test", "--package", "mcp-fleet-homes", "--test", "model"].as_slice(),
        ["test", "--package", "mcp-fleet-core", "--lib", "ledger::tests::rounds"].as_slice(),
    ] {
        show(cargo(&[tests, &ignored].concat()))?;
    }
    Ok(())
}

/// Tests `mcp-fleet try` with real processes.
pub fn fleet_on_this_machine() -> Result<()> {
    show(cargo(&["test", "--package", "mcp-fleet", "--features", "try-tests", "--test", "local"]))
}

/// Checks bans, licences and sources of all dependencies with cargo-deny.
pub fn supply() -> Result<()> {
    if command::run(&mut cargo(&["deny", "--version"])).is_err() {
        bail!("cargo-deny is not installed. Install it with `cargo install --locked cargo-deny` and try again");
    }
    show(cargo(&["deny", "check", "bans", "licenses", "sources"]))
}

/// Runs the benchmark, to notice when it breaks. The measured figures do not decide whether this part passes.
pub fn bench() -> Result<()> {
    show(cargo(&["xtask", "bench", "gateway", "--quick"]))
}

/// Returns a cargo command that runs in the repository.
pub(super) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(repository());
    command
}

/// Prints a command, and runs it with its output on the terminal.
pub(super) fn show(mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    let child = command.borrow_mut();
    let words: Vec<_> = child.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!("{} {}", child.get_program().display(), words.join(" "));
    println!("$ {line}");
    let status = child.status().with_context(|| command::start_failure(child))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}
