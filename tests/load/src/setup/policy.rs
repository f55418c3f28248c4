//! A policy that makes the gateway perform every check: token, scope, typed arguments, rates and a budget.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
use mcp_fleet_policy::model::{
    Argument, Breaker, Budget, BudgetMode, Grant, GrantedTool, Period, Principal, PrincipalLimits, Rule, Selector,
    Server, ServerLimits, StaleAfter, StringRule, TenantLimits, TenantPolicy, Tool, VerificationKey,
};
use mcp_fleet_policy::units::{Bytes, Micros};

use super::{
    AUDIENCE, BUDGET_UID, ISSUER, PRICE, PRINCIPAL_UID, SERVER, SERVER_UID, TENANT_UID, TOOL, server_identity,
};

/// High enough that no call is refused, so that the benchmark measures the check itself.
const CALLS_PER_MINUTE: u32 = 600_000_000;
const CONCURRENT: u32 = 10_000;

/// Addresses of the upstream.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Addresses {
    /// Without TLS.
    pub(crate) plain: SocketAddr,
    /// With TLS, for direct calls of agents.
    pub(crate) tls: SocketAddr,
    /// With mutual TLS, as between gateway and shim.
    pub(crate) mutual: SocketAddr,
}

/// Returns the policy of the tenant.
pub(crate) fn tenant(upstream: SocketAddr, key: VerificationKey) -> anyhow::Result<TenantPolicy> {
    let text = |max_length| Rule::String(StringRule { max_length, pattern: None, leading_dash: false });
    let argument = |name: &str, required, rule| Argument { name: name.to_owned(), required, rule, shown: None };
    let catalogue = vec![
        argument("text", true, text(100_000)),
        argument("mode", true, Rule::Enum(vec!["plain".into(), "loud".into(), "silent".into()])),
        argument("count", true, Rule::Integer { minimum: 1, maximum: 10_000 }),
    ];
    // The scope is narrower than the catalogue, so that the gateway checks both.
    let granted = vec![
        argument("text", true, text(70_000)),
        argument("mode", true, Rule::Enum(vec!["plain".into(), "silent".into()])),
        argument("count", false, Rule::Integer { minimum: 1, maximum: 100 }),
    ];
    Ok(TenantPolicy {
        tenant: "bench".into(),
        tenant_uid: TENANT_UID.into(),
        generation: 1,
        suspended: false,
        audience: AUDIENCE.into(),
        other_audiences: vec![],
        issuer: ISSUER.into(),
        keys: vec![key],
        session_key: vec![7; 32],
        traffic: TenantLimits { calls_per_minute: Some(CALLS_PER_MINUTE), max_concurrent_calls: Some(CONCURRENT) },
        built_in_tools: true,
        allowed_origins: vec![],
        stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
        currency: Some("USD".parse()?),
        servers: vec![Server {
            name: SERVER.into(),
            uid: SERVER_UID.into(),
            addresses: vec![upstream],
            identity: server_identity(),
            tools: vec![Tool {
                name: TOOL.into(),
                class: Class::Read,
                arguments: catalogue.into(),
                price: Micros::new(PRICE),
                result_price: None,
                polls: Polls::Limited,
                shown: None,
                definition: None,
                alias: None,
            }],
            limits: ServerLimits {
                timeout: Duration::from_secs(30),
                max_request: Bytes::new(256 * 1024),
                max_response: Bytes::new(4 << 20),
                max_concurrent_calls: CONCURRENT,
            },
            breaker: Breaker::DEFAULT,
            // The load repeats one call, whose result is always the same: it is judged, but not refused.
            loops: LoopSettings { mode: Mode::Monitor, ..LoopSettings::DEFAULT },
        }],
        principals: vec![Principal {
            namespace: "bench".into(),
            name: "agent".into(),
            uid: PRINCIPAL_UID.into(),
            suspended: false,
            revoked_until: None,
            breakers_cleared: None,
            grants: vec![Arc::new(Grant {
                scope: "echo".into(),
                server_uid: SERVER_UID.into(),
                tools: vec![GrantedTool { name: TOOL.into(), arguments: Some(granted.into()) }],
                classes: vec![],
            })],
            limits: PrincipalLimits {
                calls_per_minute: Some(CALLS_PER_MINUTE),
                burst: Some(1_000_000),
                max_concurrent_calls: Some(CONCURRENT),
            },
        }],
        budgets: vec![Budget {
            name: "spendLimit".into(),
            uid: BUDGET_UID.into(),
            selector: Selector::default(),
            period: Period::Month,
            amount: Some(Micros::MAX),
            calls: Some(1_000_000_000),
            mode: BudgetMode::Enforce,
            top_up: None,
        }],
    })
}
