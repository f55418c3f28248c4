//! What rendered objects need to know about this installation.

use std::net::IpAddr;

use crate::config::Config;

/// What rendered objects need to know about this installation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's namespace.
    pub operator_namespace: String,
    /// The operator's `ServiceAccount`.
    pub service_account: String,
    /// The `ClusterIP` of the operator's Service.
    pub operator_address: IpAddr,
    /// The name in the operator's certificate.
    pub operator_name: String,
    /// The image of `mcp-pod`.
    pub image: String,
    /// Its pull policy.
    pub pull_policy: String,
    /// The DNS domain of the cluster.
    pub cluster_domain: String,
    /// The namespace that may scrape metrics.
    pub monitoring_namespace: Option<String>,
    /// Whether pods get a fixed uid and fsGroup.
    pub set_security_ids: bool,
    /// The role of the operator in runtime namespaces.
    pub runtime_role: String,
    /// The role of the operator in tenant namespaces.
    pub tenant_role: String,
}

impl Settings {
    /// From the flags, and the address that was found for the operator's Service.
    pub fn new(config: &Config, operator_address: IpAddr) -> Self {
        Self {
            operator_namespace: config.namespace.clone(),
            service_account: config.service_account.clone(),
            operator_address,
            operator_name: config.operator_name(),
            image: config.mcp_pod_image.clone(),
            pull_policy: config.image_pull_policy.clone(),
            cluster_domain: config.cluster_domain.clone(),
            monitoring_namespace: config.monitoring_namespace.clone(),
            set_security_ids: config.set_security_ids,
            runtime_role: config.runtime_role.clone(),
            tenant_role: config.tenant_role.clone(),
        }
    }

    /// For tests of what is rendered.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        use clap::Parser as _;
        let config = Config::parse_from([
            "operator",
            "--mcp-pod-image=mcp-fleet.local/mcp-pod:dev",
            "--monitoring-namespace=monitoring",
        ]);
        Self::new(&config, IpAddr::from([10, 96, 0, 77]))
    }
}
