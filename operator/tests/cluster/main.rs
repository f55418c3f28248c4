//! The operator against a real API server. No kubelets and no controllers of Kubernetes run here: the tests check which
//! objects the operator creates, restores and deletes.
//!
//! `MCP_FLEET_TEST_KUBECONFIG` names the cluster; `cargo xtask test api` starts one and sets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod access;
mod addresses;
mod control;
mod gateway;
mod homes;
mod hostile;
mod kill_switch;
mod leader;
mod loops;
mod principal;
mod public_name;
mod server;
mod server_reports;
mod stuck;
mod support;
mod tenant;
mod unreadable;
