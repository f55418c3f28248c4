//! The flags of the operator. Those that Kubernetes provides can also come from the environment.

use std::net::{IpAddr, SocketAddr};

use clap::Parser;

pub use crate::rollout::MaxUnavailable;

/// Runs the operator of MCP Fleet.
#[derive(Clone, Debug, Parser)]
#[command(name = "mcp-fleet-operator", version, about)]
pub struct Config {
    /// Namespace in which the operator runs and keeps its Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mcp-fleet-system")]
    pub namespace: String,

    /// Name of this pod, which holds the Lease and reports Events.
    #[arg(long, env = "POD_NAME", default_value = "mcp-fleet-operator-0")]
    pub pod_name: String,

    /// `ServiceAccount` of this pod. It is bound to a role in each namespace of a tenant.
    #[arg(long, env = "POD_SERVICE_ACCOUNT", default_value = "mcp-fleet-operator")]
    pub service_account: String,

    /// Image of `mcp-pod`, which runs the gateways and is installed into every tool pod.
    #[arg(long, env = "MCP_POD_IMAGE")]
    pub mcp_pod_image: String,

    /// How many tenants may be updated to a new image of `mcp-pod` at a time: a number, or a percentage of all tenants.
    #[arg(long, default_value = "10%")]
    pub rollout_max_unavailable: MaxUnavailable,

    /// Update no further tenants to a new image of `mcp-pod`. New tenants get it nevertheless.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    pub rollout_paused: bool,

    /// Pull policy of that image: Always, IfNotPresent or Never.
    #[arg(long, default_value = "IfNotPresent")]
    pub image_pull_policy: String,

    /// Secret in the operator's namespace with which that image is pulled, and which is copied into all runtime namespaces; can
    /// be repeated.
    #[arg(long = "image-pull-secret", value_name = "NAME")]
    pub image_pull_secrets: Vec<String>,

    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Service in front of all operator replicas.
    #[arg(long, default_value = "mcp-fleet-operator")]
    pub service_name: String,

    /// Address to which gateways connect; by default the `ClusterIP` of that Service.
    #[arg(long)]
    pub service_address: Option<IpAddr>,

    /// Namespace whose pods may scrape metrics; by default none.
    #[arg(long)]
    pub monitoring_namespace: Option<String>,

    /// Give pods a fixed uid, gid and fsGroup; false leaves them to the platform, as OpenShift requires.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub set_security_ids: bool,

    /// `ClusterRole` bound to the operator in each runtime namespace.
    #[arg(long, default_value = "mcp-fleet-operator-runtime")]
    pub runtime_role: String,

    /// `ClusterRole` bound to the operator in each tenant namespace.
    #[arg(long, default_value = "mcp-fleet-operator-tenant")]
    pub tenant_role: String,

    /// Address on which control streams are served (TLS).
    #[arg(long, default_value = "[::]:8443")]
    pub listen: SocketAddr,

    /// Address on which health and metrics are served (plain HTTP).
    #[arg(long, default_value = "[::]:9090")]
    pub metrics_listen: SocketAddr,

    /// How long the Lease is valid without renewal, in seconds; it is renewed three times as often.
    #[arg(long, default_value_t = 6)]
    pub lease_seconds: u32,
}

impl Config {
    /// Returns the DNS name in the operator's serving certificate.
    pub fn operator_name(&self) -> String {
        format!("{}.{}.svc", self.service_name, self.namespace)
    }

    /// Returns the DNS names of the control server.
    pub(crate) fn control_names(&self) -> Vec<String> {
        let name = self.operator_name();
        vec![name.clone(), format!("{name}.{}", self.cluster_domain)]
    }

    /// Returns `iss` of a tenant's tokens.
    pub fn issuer(&self, tenant_uid: &str) -> String {
        format!("https://{}/tenants/{tenant_uid}", self.operator_name())
    }
}

/// Returns the origin of the gateway in a runtime namespace, which is also `aud` of the tenant's tokens.
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
    fn the_control_server_has_the_names_of_its_service() {
        let config = Config::parse_from(["operator", "--mcp-pod-image", "mcp-pod:dev"]);
        let name = "mcp-fleet-operator.mcp-fleet-system.svc";
        assert_eq!(config.control_names(), [name.to_owned(), format!("{name}.cluster.local")]);
    }

    #[test]
    fn a_tenants_issuer_is_its_future_token_service() {
        let config = Config::parse_from(["operator", "--mcp-pod-image", "mcp-pod:dev"]);
        assert_eq!(config.issuer("u-1"), "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/u-1");
    }
}
