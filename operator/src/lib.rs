//! The operator of MCP Fleet: it turns custom resources into isolated tenants.
//!
//! Start at [`run`]: one replica, from start to end. The leader runs the `controllers`, which apply what the resources
//! declare and write their status, and `policy`, which publishes what the same resources are compiled into. `kill_switch`
//! stops the calls of all tenants. `gateways`, `server_reports`, `audit` and `ledger` are what the control server and the
//! ledger of [`mcp_fleet_core`] need of a cluster, and `credentials` keeps keys, certificates and tokens in Secrets. All of
//! them use [`kubernetes`] to read and write API objects.

mod audit;
pub mod config;
mod context;
mod controllers;
pub mod credentials;
mod error;
mod gateways;
mod kill_switch;
pub mod kubernetes;
mod lead;
mod ledger;
mod policy;
mod retry;
mod rollout;
pub mod run;
mod server_reports;
mod tasks;
pub mod telemetry;
#[cfg(test)]
mod testing;
