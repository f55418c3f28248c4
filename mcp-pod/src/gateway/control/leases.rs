//! The gateway's purse. Until leases are driven from here it is empty: every call is refused, none is free.

use super::super::budget::{Attempt, Budgets, CallFacts};
use mcp_fleet_control::wire;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::reason::Reason;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Leases {
    epoch: String,
}

impl Leases {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { epoch: ulid::Ulid::generate().to_string() })
    }
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }
    pub(super) fn close(&self) {}
    pub(super) async fn returned(&self) {}
    pub(super) fn apply(&self, _policy: &TenantPolicy) {}
    pub(super) fn reconnected(&self) {}
    pub(super) async fn wanted(&self) {
        std::future::pending().await
    }
    pub(super) fn tick(&self) {}
    pub(super) fn answer(&self, _answer: wire::LeaseAnswer) {}
    pub(super) fn acked(&self, _ack: &wire::SpendAck) {}
    pub(super) fn recall(&self, _recall: &wire::LeaseRecall) {}
    pub(super) fn take_requests(&self) -> Vec<wire::LeaseRequest> {
        vec![]
    }
    pub(super) fn take_reports(&self) -> Vec<wire::SpendReport> {
        vec![]
    }
}
impl Budgets for Leases {
    fn reserve(&self, _call: &Arc<CallFacts>) -> Attempt {
        Attempt::Ready(Err(mcp_fleet_policy::denial::Denial::new(Reason::BudgetUnavailable)))
    }
}
