//! The data plane of MCP Fleet: one static binary that runs as a tenant's gateway, or as the shim of a tool server.
//!
//! - [`gateway`]: the only entry point to a tenant's servers. Authenticates, authorises, validates, limits, forwards and
//!   audits calls.
//! - [`shim`]: runs in the tool pod, starts the user's server in a sandbox and talks to it over stdio.
//! - [`command`]: the command line.
//! - [`envelope`]: the protocol between gateway and shim.
//! - [`tls`]: certificates, and the TLS configurations of both ends.
//! - [`logging`]: log lines, bounded in number and without blocking.
//! - [`install`]: copies the binary into a tool pod.

pub mod command;
pub mod envelope;
pub mod gateway;
pub mod install;
pub mod logging;
pub mod shim;
pub mod tls;

/// Name of the program. A process that is started under this name runs the [`command`] line.
pub const NAME: &str = "mcp-pod";
