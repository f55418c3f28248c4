//! What the operator is told at start: flags, each with an environment variable where Kubernetes hands it down.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Parser;

/// The operator of MCP Fleet.
#[derive(Clone, Debug, Parser)]
#[command(name = "mcp-fleet-operator", version, about)]
pub struct Config {
    /// The namespace in which the operator runs and keeps its Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mcp-fleet-system")]
    pub namespace: String,

    /// The name of this pod: who holds the Lease, and who reports Events.
    #[arg(long, env = "POD_NAME", default_value = "mcp-fleet-operator-0")]
    pub pod_name: String,

    /// The `ServiceAccount` of this pod: it is bound to a role in each tenant's namespaces.
    #[arg(long, env = "POD_SERVICE_ACCOUNT", default_value = "mcp-fleet-operator")]
    pub service_account: String,

    /// The image of `mcp-pod`, run as the gateway and put into every tool pod.
    #[arg(long, env = "MCP_POD_IMAGE")]
    pub mcp_pod_image: String,

    /// The pull policy of that image: Always, IfNotPresent or Never.
    #[arg(long, default_value = "IfNotPresent")]
    pub image_pull_policy: String,

    /// The DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// The Service in front of all operator replicas.
    #[arg(long, default_value = "mcp-fleet-operator")]
    pub service_name: String,

    /// The address that gateways dial; by default the `ClusterIP` of that Service.
    #[arg(long)]
    pub service_address: Option<IpAddr>,

    /// The namespace whose pods may scrape metrics; absent: none.
    #[arg(long)]
    pub monitoring_namespace: Option<String>,

    /// Give pods a fixed uid, gid and fsGroup; false leaves them to the platform, as OpenShift wants it.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub set_security_ids: bool,

    /// The `ClusterRole` bound to the operator in each runtime namespace.
    #[arg(long, default_value = "mcp-fleet-operator-runtime")]
    pub runtime_role: String,

    /// The `ClusterRole` bound to the operator in each tenant namespace.
    #[arg(long, default_value = "mcp-fleet-operator-tenant")]
    pub tenant_role: String,

    /// Where the control stream is served (TLS).
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,

    /// Where health and metrics are served (plain).
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub metrics_listen: SocketAddr,

    /// How long a Lease holds without renewal, in seconds; it is renewed three times as often.
    #[arg(long, default_value_t = 6)]
    pub lease_seconds: u32,
}

impl Config {
    /// The DNS name in the operator's serving certificate.
    pub fn operator_name(&self) -> String {
        format!("{}.{}.svc", self.service_name, self.namespace)
    }

    /// How often the Lease is renewed.
    pub fn lease_renewal(&self) -> Duration {
        Duration::from_secs(u64::from(self.lease_seconds)) / 3
    }

    /// `iss` of a tenant's tokens.
    pub fn issuer(&self, tenant_uid: &str) -> String {
        format!("https://{}/tenants/{tenant_uid}", self.operator_name())
    }
}

/// `aud` of the tokens of the tenant whose gateway runs in `runtime_namespace`, and the origin of its endpoint.
pub fn gateway_origin(runtime_namespace: &str) -> String {
    format!("https://gateway.{runtime_namespace}.svc")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Config::command().debug_assert();
    }

    #[test]
    fn a_tenants_issuer_is_its_future_token_service() {
        let config = Config::parse_from(["operator", "--mcp-pod-image", "mcp-pod:dev"]);
        assert_eq!(config.issuer("u-1"), "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/u-1");
    }
}
