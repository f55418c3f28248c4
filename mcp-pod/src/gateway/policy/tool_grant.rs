//! What all calls of one tool by one principal under one policy share.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::breaker::{Breakers, CallerBreaker, ToolKey};
use mcp_fleet_policy::budget::PricedCall;
use mcp_fleet_policy::engine::{PrincipalRef, ToolAccess};
use mcp_fleet_policy::model::{Budget, Server, TenantPolicy};
use mcp_fleet_policy::price::ResultPrice;
use mcp_fleet_policy::units::{Currency, Micros};

use super::ActivePolicy;
use crate::gateway::audit::{ArgumentKey, Name, Subject};
use crate::gateway::memory::Account;
use crate::gateway::metrics::{Metrics, ToolMetrics};
use crate::gateway::request::TOOLS_CALL;
use crate::gateway::upstream::Upstream;

/// Permission of a principal to call a tool.
#[derive(Debug)]
pub(crate) struct ToolGrant {
    pub(crate) subject: Arc<Subject<'static>>,
    /// Name by which callers know the tool.
    pub(crate) wire_name: Box<str>,
    pub(crate) argument_key: ArgumentKey,
    /// Longest time from the forwarding of a call to its result.
    pub(crate) timeout: Duration,
    /// Memory of the principal's requests.
    pub(crate) account: Arc<Account>,
    /// Largest result that is released, in bytes.
    pub(crate) max_response: u64,
    /// Price of one call; the most that it costs, if the result states the price.
    pub(crate) price: Micros,
    pub(crate) result_price: Option<Arc<ResultPrice>>,
    /// Every budget that covers a call; each must have room.
    pub(crate) budgets: Vec<Budget>,
    pub(crate) metrics: ToolMetrics,
    pub(crate) breaker: CallerBreaker,
    pub(crate) upstream: Arc<Upstream>,
}

impl ToolGrant {
    pub(crate) fn new(
        policy: &ActivePolicy,
        metrics: &Metrics,
        breakers: &Breakers,
        principal: PrincipalRef<'_>,
        access: ToolAccess<'_>,
    ) -> Self {
        let TenantPolicy { tenant, generation, currency, .. } = policy.tenant_policy();
        let (server, tool) = (access.server(), access.tool());
        let subject = Subject {
            tenant: tenant.clone().into(),
            generation: *generation,
            principal: principal.label().to_owned().into(),
            principal_uid: principal.model().uid.clone().into(),
            server: Name::Known(server.name.clone().into()),
            tool: Name::Known(tool.name.clone().into()),
            class: Some(access.class()),
            method: Name::Known(TOOLS_CALL.into()),
        };
        Self {
            wire_name: tool.wire_name().into(),
            argument_key: policy.argument_key.clone(),
            timeout: server.limits.timeout,
            account: Arc::clone(&policy.memory(principal).requests),
            max_response: server.limits.max_response.get(),
            price: access.price(),
            result_price: access.tool().result_price.clone(),
            budgets: access.budgets().cloned().collect(),
            metrics: ToolMetrics::new(metrics, &subject, currency.as_ref().map(Currency::as_str)),
            upstream: Arc::clone(policy.upstream(access.server_index())),
            breaker: caller_breaker(breakers, principal, access),
            subject: Arc::new(subject),
        }
    }

    /// Returns one call of the tool, as the lease pool prices it.
    pub(crate) fn priced_call(&self) -> PricedCall<'_> {
        let Subject { principal, server, tool, .. } = &*self.subject;
        PricedCall { principal, server: server.known(), tool: tool.known(), price: self.price }
    }
}

/// Returns the breakers of a tool for the calls of a principal.
pub(crate) fn caller_breaker(
    breakers: &Breakers,
    principal: PrincipalRef<'_>,
    access: ToolAccess<'_>,
) -> CallerBreaker {
    let Server { name, uid, breaker, .. } = access.server();
    let key = ToolKey { server_uid: uid.clone(), server: name.clone(), tool: access.tool().name.clone() };
    CallerBreaker::new(breakers.tool(key), &principal.model().uid, *breaker)
}
