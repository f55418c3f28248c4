//! What the fault tests share: a tenant of their own on the node, an MCP caller, and waiting.
//!
//! The tests run inside the network of the node (`cargo xtask test e2e`), after the demo: operator, charts and images
//! are there.

mod caller;
mod tenant;
mod wait;

pub use caller::{Answer, Caller};
pub use tenant::{FaultTenant, NAMESPACE, RUNTIME};
pub use wait::until;

/// The namespace of the operator.
pub const OPERATOR: &str = "mcp-fleet-system";

/// A client with the administrator's kubeconfig, which `cargo xtask test` names in the environment.
pub async fn client() -> anyhow::Result<kube::Client> {
    use anyhow::Context as _;
    let file = std::env::var_os("MCP_FLEET_TEST_KUBECONFIG")
        .context("MCP_FLEET_TEST_KUBECONFIG is not set: run these tests with `cargo xtask test e2e`")?;
    let kubeconfig = kube::config::Kubeconfig::read_from(file)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
