//! The controllers against a real API server. There are no kubelets and no controllers of Kubernetes here: what is
//! checked is what the operator asks for, keeps, and takes away again.
//!
//! `MCP_FLEET_TEST_KUBECONFIG` names the cluster; `cargo xtask test api` brings one up and sets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail where it stands")]

mod control;
mod gateway;
mod leader;
mod principal;
mod server;
mod support;
mod tenant;
mod unreadable;
