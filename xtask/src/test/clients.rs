//! Official MCP clients against a gateway: prepares them as `tests/clients/` pins them, and runs the tests with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::on_host::{cargo, show};
use crate::tools::cache::{self, Key};
use crate::tools::{command, go, progress, python, repository};

/// Lets every client go through its scenario.
pub fn run() -> Result<()> {
    test(&[])
}

/// Lets every client make one call of six minutes.
pub fn long_calls() -> Result<()> {
    test(&["--", "--ignored"])
}

fn test(arguments: &[&str]) -> Result<()> {
    let folder = repository().join("tests/clients");
    let mut tests = cargo(&["test", "--package", "mcp-pod", "--features", "client-tests", "--test", "clients"]);
    for version in ["1", "2"] {
        let pins = folder.join(format!("python-{version}.txt"));
        let pins = fs::read_to_string(&pins).with_context(|| format!("failed to read {}", pins.display()))?;
        let packages = python::packages(&format!("mcp-{version}"), &pins.lines().collect::<Vec<_>>())?;
        let program = folder.join(format!("client_{version}.py"));
        tests.env(format!("MCP_PACKAGES_PYTHON_{version}"), packages);
        tests.env(format!("MCP_CLIENT_PYTHON_{version}"), words("/usr/bin/python3", &program));
    }
    tests.env("MCP_CLIENT_NODE", words("node", &node(&folder)?));
    tests.env("MCP_CLIENT_GO", go_client(&folder.join("go"))?);
    tests.env("MCP_CLIENT_RUST", rust_client(&folder.join("rust"))?);
    show(tests.args(arguments))
}

/// Returns a command as the tests read it: one word a line.
fn words(program: &str, file: &Path) -> String {
    format!("{program}\n{}", file.display())
}

/// Returns the TypeScript client, beside its packages.
fn node(folder: &Path) -> Result<PathBuf> {
    let files = ["package.json", "package-lock.json", "client.mjs"];
    let key = files.iter().try_fold(Key::default(), |key, file| key.path(&folder.join(file)))?.finish();
    let folder = cache::folder("clients", "node", &key, |installed| {
        if !command::on_path("npm") {
            bail!("npm is missing. Install Node.js 20 or newer with it and try again");
        }
        for file in files {
            fs::copy(folder.join(file), installed.join(file)).with_context(|| format!("failed to copy {file}"))?;
        }
        let mut install = Command::new("npm");
        install.args(["ci", "--silent", "--ignore-scripts"]).current_dir(installed);
        progress::step("installing the npm packages of the TypeScript clients", "20 s", || command::run(&mut install))
    })?;
    Ok(folder.join("client.mjs"))
}

/// Builds the Go client.
fn go_client(source: &Path) -> Result<PathBuf> {
    let key = Key::default().path(source)?.finish();
    let folder = cache::folder("clients", "go", &key, |folder| {
        let mut build = Command::new(go::program()?);
        build.args(["build", "-trimpath", "-o"]).arg(folder.join("client")).arg(".");
        build.current_dir(source).env("CGO_ENABLED", "0");
        progress::step("building the Go client", "20 s", || command::run(&mut build))
    })?;
    Ok(folder.join("client"))
}

/// Builds the Rust client.
fn rust_client(source: &Path) -> Result<PathBuf> {
    let mut key = Key::default();
    for file in ["Cargo.toml", "Cargo.lock", "src"] {
        key = key.path(&source.join(file))?;
    }
    let folder = cache::folder("clients", "rust", &key.finish(), |folder| {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--locked", "--target-dir"]).arg(folder.join("target")).current_dir(source);
        progress::step("building the Rust client", "2 min", || command::run(&mut build))?;
        fs::copy(folder.join("target/debug/client"), folder.join("client")).context("failed to copy the client")?;
        cache::remove(&folder.join("target"))
    })?;
    Ok(folder.join("client"))
}
