//! Who an object is, and which tenant it belongs to.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcp_fleet_crds::MCPTenant;

use super::error::ReconcileError;
use crate::kubernetes::cache::Cache;

/// Name and UID of an object. The API server sets both on every object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectId {
    pub name: String,
    pub uid: String,
}

impl ObjectId {
    /// Reads the name and the UID of an object.
    pub(crate) fn of(metadata: &ObjectMeta) -> Result<Self, ReconcileError> {
        Ok(Self {
            name: metadata.name.clone().ok_or(ReconcileError::Incomplete("metadata.name"))?,
            uid: metadata.uid.clone().ok_or(ReconcileError::Incomplete("metadata.uid"))?,
        })
    }
}

/// The tenant that owns the namespace of an object.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub id: ObjectId,
    pub tenant: Arc<MCPTenant>,
}

impl Owner {
    /// Returns the tenant that owns a namespace, or none if no tenant does.
    pub(crate) fn of_namespace(cache: &Cache, namespace: &str) -> Result<Option<Self>, ReconcileError> {
        let Some(tenant) = cache.tenant_of_namespace(namespace) else { return Ok(None) };
        Ok(Some(Self { id: ObjectId::of(&tenant.metadata)?, tenant }))
    }

    /// Whether the tenant is being deleted.
    pub(crate) fn is_being_deleted(&self) -> bool {
        self.tenant.metadata.deletion_timestamp.is_some()
    }
}
