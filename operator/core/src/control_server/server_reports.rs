//! Carries the last report of each tool server between gateways and where it is kept, so that agents see the same tools
//! while a server is down.

use std::collections::HashSet;
use std::sync::Arc;

use mcp_fleet_control::wire::{SeenServerReport, from_operator};
use mcp_fleet_policy::model::TenantPolicy;

use super::auth::GatewayPod;
use super::hub::ServerReports;
use super::spend::message;
use crate::error;
use crate::shared_state::Outbound;

/// Keeps a report that a gateway sent, and acknowledges it.
pub(super) async fn keep(
    reports: &dyn ServerReports,
    gateway: GatewayPod,
    policy: Arc<TenantPolicy>,
    seen: SeenServerReport,
    outbound: Outbound,
) {
    match reports.keep(&gateway, &policy, seen).await {
        Ok(Some(kept)) => {
            // The gateway may have disconnected.
            let _ = outbound.send(Ok(message(from_operator::Message::KeptServerReports(kept)))).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(
                tenant = gateway.tenant,
                error = error::chain(&*error),
                "the report of a server is not kept"
            );
        }
    }
}

/// Sends a gateway the kept reports that it wants.
pub(super) async fn give(
    reports: &dyn ServerReports,
    gateway: GatewayPod,
    wanted: HashSet<String>,
    outbound: Outbound,
) {
    if let Err(error) = reports.give(&gateway, &wanted, &outbound).await {
        let tenant = gateway.tenant;
        tracing::warn!(tenant, error = error::chain(&*error), "a gateway does not get the kept reports of its servers");
    }
}
