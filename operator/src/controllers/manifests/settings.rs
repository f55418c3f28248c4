//! Settings of this installation that manifests depend on.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use mcp_fleet_crds::MCPTenant;

use crate::config::Config;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::rollout::{ShimOptions, WantedPods};

/// Returns the name of the copy in runtime namespaces of a pull secret of the operator's namespace. Copies for servers begin
/// with `mcp-`.
pub(crate) fn pull_secret_copy(name: &str) -> String {
    format!("image-pull.{name}")
}

/// Settings of this installation that manifests depend on.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Settings {
    pub operator_namespace: String,
    /// `ServiceAccount` of the operator.
    pub service_account: String,
    /// Address to which gateways connect.
    pub operator_address: IpAddr,
    /// DNS name in the operator's certificate.
    pub operator_name: String,
    /// Image of `mcp-pod`.
    pub image: String,
    /// Whether the gateway's pods have all that they have in this version. Those of an earlier image do not.
    pub has_newest_form: bool,
    /// The options of the shim in the image.
    pub options: ShimOptions,
    /// Whether there may be several gateways. Those of earlier versions do not forward requests to each other.
    pub may_scale: bool,
    /// Pull policy of that image.
    pub pull_policy: String,
    /// Names of the Secrets in runtime namespaces with which that image is pulled.
    pub pull_secrets: Vec<String>,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Namespace that may scrape metrics.
    pub monitoring_namespace: Option<String>,
    /// Whether pods get a fixed uid and fsGroup.
    pub set_security_ids: bool,
    /// `ClusterRole` of the operator in runtime namespaces.
    pub runtime_role: String,
    /// `ClusterRole` of the operator in tenant namespaces.
    pub tenant_role: String,
}

impl Settings {
    /// Reads the address of the operator's Service and the image that the tenant's pods have to run, and combines both with
    /// the flags.
    pub(crate) async fn load(ctx: &Context, tenant: &MCPTenant) -> Result<Self, ReconcileError> {
        let pods = ctx.rollout.pods(ctx, tenant).await.map_err(ReconcileError::api("read the gateway's Deployment"))?;
        let WantedPods { image, has_newest_form, options, may_scale } = pods;
        let new = Self::new(&ctx.config, operator_address(ctx).await?);
        Ok(Self { image, has_newest_form, options, may_scale, ..new })
    }

    /// Combines the flags with the address to which gateways connect.
    pub(crate) fn new(config: &Config, operator_address: IpAddr) -> Self {
        Self {
            operator_namespace: config.namespace.clone(),
            service_account: config.service_account.clone(),
            operator_address,
            operator_name: config.operator_name(),
            image: config.mcp_pod_image.clone(),
            has_newest_form: true,
            options: ShimOptions::NEWEST,
            may_scale: true,
            pull_policy: config.image_pull_policy.clone(),
            pull_secrets: config.image_pull_secrets.iter().map(|name| pull_secret_copy(name)).collect(),
            cluster_domain: config.cluster_domain.clone(),
            monitoring_namespace: config.monitoring_namespace.clone(),
            set_security_ids: config.set_security_ids,
            runtime_role: config.runtime_role.clone(),
            tenant_role: config.tenant_role.clone(),
        }
    }

    /// Returns settings for tests.
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

/// Returns the address to which gateways connect: the configured one, or the `ClusterIP` of the operator's Service.
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
