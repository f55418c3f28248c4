//! The operator of MCP Fleet: it turns custom resources into isolated tenants.
//!
//! Start at [`run`]: one replica, from start to end. The leader runs the `controllers`, which apply what the resources
//! declare and write their status, and `policy`, which compiles the same resources into one policy per tenant.
//! `control_server` pushes policies to the gateways and answers their requests for budget from the `ledger`.
//! `kill_switch` stops the calls of all tenants. `shared_state` holds the results that these parts share, `credentials` issues keys, certificates and tokens, and
//! [`kubernetes`] is what all of them use to read and write API objects. [`local`] is the
//! operator of a fleet on one machine, without Kubernetes.

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
