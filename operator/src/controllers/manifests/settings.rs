//! What rendered objects need to know about this installation.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::Api;

use crate::config::Config;
use crate::context::Context;
use crate::controllers::error::ReconcileError;

/// What rendered objects need to know about this installation.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
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
    /// Combines the flags with the address of the operator's Service.
    pub(crate) async fn load(ctx: &Context) -> Result<Self, ReconcileError> {
        Ok(Self::new(&ctx.config, operator_address(ctx).await?))
    }

    /// From the flags, and the address that was found for the operator's Service.
    pub(crate) fn new(config: &Config, operator_address: IpAddr) -> Self {
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

/// The address that gateways dial: as configured, or that of the operator's Service.
async fn operator_address(ctx: &Context) -> Result<IpAddr, ReconcileError> {
    if let Some(address) = ctx.config.service_address {
        return Ok(address);
    }
    let api: Api<Service> = Api::namespaced(ctx.client.clone(), &ctx.config.namespace);
    let service =
        api.get(&ctx.config.service_name).await.map_err(ReconcileError::api("read the operator's Service"))?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).and_then(|ip| ip.parse().ok());
    address.ok_or(ReconcileError::Incomplete("spec.clusterIP"))
}
