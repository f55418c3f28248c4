//! The data plane of MCP Fleet: one static binary that is a tenant's gateway, or the shim in front of a tool server.
//!
//! - [`gateway`]: the tenant's one door. Authenticates, authorises, validates, governs, forwards, audits.
//! - [`shim`]: runs in the tool pod, starts the user's server in a sandbox and speaks to it over stdio.
//! - [`envelope`]: what travels from gateway to shim.
//! - [`tls`]: certificates and the configurations of both ends.
//! - [`install`]: how the binary gets into a tool pod.

pub mod envelope;
pub mod gateway;
pub mod install;
pub mod shim;
pub mod tls;
