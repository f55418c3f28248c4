//! Helpers for the fault tests: a tenant for these tests, an MCP client, faults, and a function that waits for a condition.
//!
//! `cargo xtask test e2e` runs the tests in the cluster's network, after the demo, which has installed the operator and
//! loaded the images.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic fails the test"
)]

mod caller;
pub mod faults;
mod tenant;
mod wait;

pub use caller::{Answer, Caller, credential};
pub use tenant::{FaultTenant, NAMESPACE, RUNTIME, address, marks};
pub use wait::until;

/// Namespace of the operator.
pub const OPERATOR: &str = "mcp-fleet-system";

/// Label selector of the pods of gateways.
pub const GATEWAYS: &str = "app.kubernetes.io/component=gateway";
/// Label selector of the pods of the operator.
pub const OPERATORS: &str = "app.kubernetes.io/component=operator";

/// Returns a client with the administrator's kubeconfig, whose path `cargo xtask test` sets in the environment.
pub async fn client() -> anyhow::Result<kube::Client> {
    use anyhow::Context as _;
    let file = std::env::var_os("MCP_FLEET_TEST_KUBECONFIG")
        .context("MCP_FLEET_TEST_KUBECONFIG is not set: run these tests with `cargo xtask test e2e`")?;
    let kubeconfig = kube::config::Kubeconfig::read_from(file)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
