//! What control streams need of the process that serves them, which is a replica of the operator or a fleet on one machine.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use mcp_fleet_audit::Head;
use mcp_fleet_control::wire::{KeptServerReports, SeenServerReport};
use mcp_fleet_policy::model::TenantPolicy;

use super::auth::{AuthError, GatewayPod};
use crate::error::BoxError;
use crate::shared_state::{Outbound, SharedState};

/// What all control streams share.
#[derive(Debug)]
pub struct Hub {
    pub shared_state: Arc<SharedState>,
    pub gateways: Arc<dyn Gateways>,
    pub alarms: Arc<dyn Alarms>,
    /// The ends of the audit logs of gateways; none if they are not kept.
    pub audit: Option<Arc<dyn AuditHeads>>,
    /// The reports of tool servers; none if they are not kept.
    pub reports: Option<Arc<dyn ServerReports>>,
}

/// The gateways that may connect.
#[tonic::async_trait]
pub trait Gateways: Debug + Send + Sync {
    /// Returns the gateway with this token.
    async fn authenticate(&self, token: &str) -> Result<GatewayPod, AuthError>;

    /// Checks that a gateway still runs.
    async fn check_again(&self, gateway: &GatewayPod) -> Result<(), AuthError>;

    /// Returns how many gateways a tenant has if all that are declared run. None if that cannot be read.
    fn places(&self, tenant_uid: &str) -> Option<usize>;

    /// Returns the address of the pod of a gateway in this namespace, if it is known. Elsewhere, a tenant has one gateway.
    fn address(&self, namespace: &str, pod_uid: &str) -> Option<IpAddr>;

    /// Returns the UIDs of a tenant's gateways that may still run. A deleted tenant has none. None if it is not known
    /// where they would be.
    async fn running(&self, tenant_uid: &str) -> Result<Option<BTreeSet<String>>, BoxError>;
}

/// Tells people about what they have to look at.
#[tonic::async_trait]
pub trait Alarms: Debug + Send + Sync {
    /// Tells people about an object, which may not exist any more. A failure is only logged.
    async fn alarm(&self, about: &ObjectReference, reason: &str, action: &str, note: String);
}

/// Keeps how far the audit logs of gateways are known to have been written.
pub trait AuditHeads: Debug + Send + Sync {
    /// Records the last line of the log of a gateway.
    fn record(&self, gateway: &GatewayPod, head: Head);
}

/// Keeps the last report of each tool server.
#[tonic::async_trait]
pub trait ServerReports: Debug + Send + Sync {
    /// Waits until it is known which reports of a gateway's servers are kept, and returns them.
    async fn kept(&self, gateway: &GatewayPod) -> KeptServerReports;

    /// Keeps a report, unless it is not of one of the tenant's servers, too large, or too soon after the last. Returns the
    /// answer to the gateway once the report is kept.
    async fn keep(
        &self,
        gateway: &GatewayPod,
        policy: &TenantPolicy,
        seen: SeenServerReport,
    ) -> Result<Option<KeptServerReports>, BoxError>;

    /// Sends a gateway the kept reports of those of its servers that are `wanted`, by UID.
    async fn give(&self, gateway: &GatewayPod, wanted: &HashSet<String>, outbound: &Outbound) -> Result<(), BoxError>;
}
