//! What is the same for every call of one tool by one principal under one policy.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::engine::{PrincipalRef, ToolAccess};
use mcp_fleet_policy::model::TenantPolicy;

use crate::gateway::budget::CallFacts;
use crate::gateway::metrics::{Labels, Metrics, ToolMetrics};

/// A tool that a principal may call.
#[derive(Debug)]
pub(crate) struct ToolGrant {
    pub(crate) tenant: String,
    pub(crate) generation: u64,
    pub(crate) principal_uid: String,
    pub(crate) class: Class,
    /// From the forwarding of a call to its result.
    pub(crate) timeout: Duration,
    /// Bytes of a result.
    pub(crate) max_response: u64,
    pub(crate) facts: Arc<CallFacts>,
    pub(crate) metrics: ToolMetrics,
}

impl ToolGrant {
    pub(crate) fn new(
        policy: &TenantPolicy,
        metrics: &Metrics,
        principal: PrincipalRef<'_>,
        access: ToolAccess<'_>,
    ) -> Self {
        let (server, tool) = (access.server(), access.tool());
        let labels =
            Labels { tenant: &policy.tenant, principal: principal.label(), server: &server.name, tool: &tool.name };
        let currency = policy.currency.as_ref().map(mcp_fleet_policy::units::Currency::as_str);
        Self {
            tenant: policy.tenant.clone(),
            generation: policy.generation,
            principal_uid: principal.policy().uid.clone(),
            class: access.class(),
            timeout: server.limits.timeout,
            max_response: server.limits.max_response.get(),
            facts: Arc::new(CallFacts {
                principal: principal.label().to_owned(),
                server: server.name.clone(),
                tool: tool.name.clone(),
                price: access.price(),
                budgets: access.budgets().cloned().collect(),
            }),
            metrics: ToolMetrics::new(metrics, labels, currency),
        }
    }
}
