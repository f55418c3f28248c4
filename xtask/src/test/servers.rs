//! Real MCP servers in the sandbox and behind a gateway: installs them as `tests/servers/` pins them, and runs the tests with them.

use anyhow::Result;

use super::on_host::{cargo, show};
use crate::servers::install;

/// Runs a session on each server, directly and through a gateway.
pub fn run() -> Result<()> {
    let mut tests = cargo(&["test", "--package", "mcp-fleet", "--features", "server-tests", "--test", "servers"]);
    install::all(&mut tests)?;
    show(tests)
}
