//! Step one: reads. What the claims of a tenant meet.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPTenant;

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::kubernetes::cache::older_claim;
use crate::kubernetes::labels::Labels;

/// A namespace, if it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is not.
    Missing,
    /// It is.
    There {
        /// Its labels.
        labels: Labels,
        /// Its annotations.
        annotations: Labels,
        /// Whether it is being deleted.
        terminating: bool,
    },
}

/// What was read.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The name of an older tenant with the same claim.
    pub older_claim: Option<String>,
    /// The namespace that the tenant claims.
    pub tenant_namespace: Found,
    /// The namespace of its gateway and servers.
    pub runtime_namespace: Found,
    /// The operator's own.
    pub operator_namespace: String,
}

/// Reads it.
pub(crate) async fn dereference(object: &MCPTenant, ctx: &Context) -> Result<Facts, ReconcileError> {
    let older = older_claim(object, &ctx.cache.all_tenants());
    Ok(Facts {
        older_claim: older.map(|tenant| tenant.name_any()),
        tenant_namespace: namespace(ctx, &object.spec.namespace.name).await?,
        runtime_namespace: namespace(ctx, &object.runtime_namespace()).await?,
        operator_namespace: ctx.config.namespace.clone(),
    })
}

/// Reads one namespace.
pub(crate) async fn namespace(ctx: &Context, name: &str) -> Result<Found, ReconcileError> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let found = api.get_metadata_opt(name).await.map_err(ReconcileError::api("read a namespace"))?;
    Ok(found.map_or(Found::Missing, |found| Found::There {
        terminating: found.metadata.deletion_timestamp.is_some(),
        labels: found.metadata.labels.unwrap_or_default(),
        annotations: found.metadata.annotations.unwrap_or_default(),
    }))
}
