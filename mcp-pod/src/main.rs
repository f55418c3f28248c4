//! `mcp-pod`: the data plane of MCP Fleet in one static binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcp_pod::command::run()
}
