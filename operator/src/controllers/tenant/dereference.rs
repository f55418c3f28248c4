//! Step one: reads the namespaces that a tenant claims, and who else claims them.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};
use mcp_fleet_core::labels::Labels;
use mcp_fleet_crds::MCPTenant;

use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::identity::ObjectId;

/// What was read for one reconcile of a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub id: ObjectId,
    /// Name of an older tenant that claims one of the namespaces too.
    pub older_claim: Option<String>,
    /// The tenant's own namespace.
    pub tenant_namespace: Found,
    /// The namespace of its gateway and servers.
    pub runtime_namespace: Found,
    /// Name of the operator's namespace.
    pub operator_namespace: String,
}

/// Whether a namespace exists, and how it is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The namespace does not exist.
    Missing,
    /// The namespace exists.
    There {
        /// UID of the namespace.
        uid: String,
        /// Labels of the namespace.
        labels: Labels,
        /// Annotations of the namespace.
        annotations: Labels,
        /// Whether the namespace is being deleted.
        terminating: bool,
    },
}

/// Reads the inputs of a tenant's reconcile. A namespace that the cache does not hold is read from the API server: the cache
/// holds only labelled ones.
pub(crate) async fn dereference(object: &MCPTenant, ctx: &Context) -> Result<Inputs, ReconcileError> {
    let older = ctx.cache.older_claim(object);
    Ok(Inputs {
        id: ObjectId::of(&object.metadata)?,
        older_claim: older.map(|tenant| tenant.name_any()),
        tenant_namespace: namespace(ctx, &object.spec.namespace.name).await?,
        runtime_namespace: namespace(ctx, &object.runtime_namespace()).await?,
        operator_namespace: ctx.config.namespace.clone(),
    })
}

async fn namespace(ctx: &Context, name: &str) -> Result<Found, ReconcileError> {
    let metadata = if let Some(cached) = ctx.cache.namespaces.get("", name) {
        Some(cached.metadata.clone())
    } else {
        let api: Api<Namespace> = Api::all(ctx.client.clone());
        let found = api.get_metadata_opt(name).await.map_err(ReconcileError::api("read a namespace"))?;
        found.map(|found| found.metadata)
    };
    Ok(metadata.map_or(Found::Missing, |metadata| Found::There {
        uid: metadata.uid.unwrap_or_default(),
        terminating: metadata.deletion_timestamp.is_some(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
    }))
}
