//! Events on an MCPPrincipal about its agent, from the reports of a gateway.
//!
//! A gateway limits its reports; the limits here hold even if it does not.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_policy::model::{Principal, Server, TenantPolicy, Tool};
use tokio::time::Instant;

use super::hub::Alarms;

/// Shortest time between two Events of one sort about one principal.
pub(super) const INTERVAL: Duration = Duration::from_secs(50);
/// Events of one sort in [`PERIOD`] over all principals of one gateway.
pub(super) const MAX_EVENTS: usize = 20;
pub(super) const PERIOD: Duration = Duration::from_mins(1);

/// The Events of one sort about the reports of one gateway in the last minute.
#[derive(Debug, Default)]
pub(super) struct AlarmLimit {
    by_principal: HashMap<String, Instant>,
    recent: VecDeque<Instant>,
}

/// An Event about a principal.
#[derive(Debug, PartialEq)]
pub(super) struct Alarm {
    pub(super) principal: ObjectReference,
    pub(super) reason: &'static str,
    pub(super) action: &'static str,
    pub(super) note: String,
}

/// The objects that a report is about. All of them are the tenant's.
pub(super) struct Parties<'p> {
    pub(super) principal: &'p Principal,
    pub(super) server: &'p Server,
    /// Absent if the server has no such tool.
    pub(super) tool: Option<&'p Tool>,
}

impl<'p> Parties<'p> {
    /// Finds the objects in the policy of the gateway's tenant.
    pub(super) fn find(policy: &'p TenantPolicy, principal_uid: &str, server: &str, tool: &str) -> Option<Self> {
        let principal = policy.principals.iter().find(|principal| principal.uid == principal_uid)?;
        let server = policy.servers.iter().find(|known| known.name == server)?;
        Some(Self { principal, server, tool: server.tools.iter().find(|known| known.name == tool) })
    }

    /// Returns a reference to the principal.
    pub(super) fn principal(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(MCPPrincipal::api_version(&()).into_owned()),
            kind: Some(MCPPrincipal::kind(&()).into_owned()),
            namespace: Some(self.principal.namespace.clone()),
            name: Some(self.principal.name.clone()),
            uid: Some(self.principal.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

impl AlarmLimit {
    /// Returns whether there may be an Event about the principal now, which then counts.
    pub(super) fn admits(&mut self, now: Instant, principal: &Principal) -> bool {
        self.by_principal.retain(|_, last| now.saturating_duration_since(*last) < INTERVAL);
        while self.recent.front().is_some_and(|first| now.saturating_duration_since(*first) >= PERIOD) {
            self.recent.pop_front();
        }
        if self.recent.len() >= MAX_EVENTS || self.by_principal.contains_key(&principal.uid) {
            return false;
        }
        self.recent.push_back(now);
        self.by_principal.insert(principal.uid.clone(), now);
        true
    }
}

impl Alarm {
    /// Writes the Event. Repeated ones about a principal become one with a count.
    pub(super) async fn publish(self, alarms: &dyn Alarms) {
        let Self { principal, reason, action, note } = self;
        alarms.alarm(&principal, reason, action, note).await;
    }
}
