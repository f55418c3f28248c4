//! What is the same for every call of one tool by one principal under one policy.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::engine::{PrincipalRef, ToolAccess};
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::units::Currency;

use super::ActivePolicy;
use crate::gateway::audit::{ArgumentKey, Name, Subject};
use crate::gateway::budget::CallFacts;
use crate::gateway::metrics::{Metrics, ToolMetrics};
use crate::gateway::request::TOOLS_CALL;

/// A tool that a principal may call.
#[derive(Debug)]
pub(crate) struct ToolGrant {
    pub(crate) subject: Arc<Subject<'static>>,
    pub(crate) argument_key: ArgumentKey,
    /// From the forwarding of a call to its result.
    pub(crate) timeout: Duration,
    /// Largest result that is released, in bytes.
    pub(crate) max_response: u64,
    pub(crate) facts: Arc<CallFacts>,
    pub(crate) metrics: ToolMetrics,
}

impl ToolGrant {
    pub(crate) fn new(
        policy: &ActivePolicy,
        metrics: &Metrics,
        principal: PrincipalRef<'_>,
        access: ToolAccess<'_>,
    ) -> Self {
        let TenantPolicy { tenant, generation, currency, .. } = policy.tenant_policy();
        let (server, tool) = (access.server(), access.tool());
        let subject = Subject {
            tenant: tenant.clone().into(),
            generation: *generation,
            principal: principal.label().to_owned().into(),
            principal_uid: principal.policy().uid.clone().into(),
            server: Name::Known(server.name.clone().into()),
            tool: Name::Known(tool.name.clone().into()),
            class: Some(access.class()),
            method: Name::Known(TOOLS_CALL.into()),
        };
        Self {
            argument_key: policy.argument_key.clone(),
            timeout: server.limits.timeout,
            max_response: server.limits.max_response.get(),
            facts: Arc::new(CallFacts {
                principal: principal.label().to_owned(),
                server: server.name.clone(),
                tool: tool.name.clone(),
                price: access.price(),
                budgets: access.budgets().cloned().collect(),
            }),
            metrics: ToolMetrics::new(metrics, &subject, currency.as_ref().map(Currency::as_str)),
            subject: Arc::new(subject),
        }
    }
}
