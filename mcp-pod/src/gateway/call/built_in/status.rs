//! `fleet_status`: who the caller is, and what it may still do. Shows nothing of other principals.

use jiff::Timestamp;
use mcp_fleet_policy::budget::{BudgetStanding, BudgetState, Remaining};
use mcp_fleet_policy::built_in::Subject;
use mcp_fleet_policy::model::{Budget, TenantPolicy, Tool};
use mcp_fleet_policy::units::{Currency, Micros};
use serde_json::{Map, Value, json};

use super::Answer;
use crate::gateway::state::RequestContext;

/// Paused tools that are shown, those that are paused for longest first.
const MAX_PAUSED: usize = 100;

/// Returns the status of the caller.
pub(super) fn status(context: &RequestContext<'_>) -> Answer {
    let policy = context.policy.tenant_policy();
    let principal = context.caller.principal;
    let scopes: Vec<Value> = principal
        .model()
        .grants
        .iter()
        .filter_map(|grant| {
            let server = policy.servers.iter().find(|server| server.uid == grant.server_uid)?;
            Some(json!({"name": grant.scope, "server": server.name}))
        })
        .collect();
    let data = json!({
        "at": Timestamp::from_second(context.now.unix_seconds()).unwrap_or_default().to_string(),
        "tenant": policy.tenant,
        "principal": principal.label(),
        "credentialExpiresAt": time(context.now.unix_of(context.caller.expires_at)),
        "scopes": scopes,
        "limits": limits(context),
        "budgets": budgets(context, policy),
        "paused": paused(context),
    });
    Answer { text: data.to_string(), data }
}

fn time(unix: i64) -> String {
    Timestamp::from_second(unix).unwrap_or_default().to_string()
}

/// Returns the principal's own limits. Those of the tenant and of servers would show what others do.
fn limits(context: &RequestContext<'_>) -> Value {
    let state = context.state;
    let Some(standing) = state.governor.standing(state.tick(), &context.caller.principal.model().uid) else {
        return json!({"callsInFlight": {"now": 0}});
    };
    let mut limits = json!({"callsInFlight": {"now": standing.in_flight}});
    if let Some(max) = standing.max_in_flight {
        limits["callsInFlight"]["max"] = max.into();
    }
    if let Some(rate) = standing.rate {
        limits["calls"] = json!({"perMinute": rate.per_minute, "burst": rate.burst, "left": rate.left});
    }
    limits
}

/// Returns the budgets that cover calls of the caller, with their limits and what the gateway heard from the ledger.
fn budgets(context: &RequestContext<'_>, policy: &TenantPolicy) -> Vec<Value> {
    let covering = context.caller.principal.budgets();
    policy.budgets.iter().filter(|budget| covering.contains(&*budget.uid)).map(|shown| budget(context, shown)).collect()
}

fn budget(context: &RequestContext<'_>, budget: &Budget) -> Value {
    let policy = context.policy.tenant_policy();
    let now = Timestamp::from_second(context.now.unix_seconds()).unwrap_or_default();
    let mut shown = Map::new();
    shown.insert("name".into(), budget.name.as_str().into());
    shown.insert("mode".into(), json!(budget.mode));
    shown.insert("period".into(), json!(budget.period));
    let (start, end) = budget.period.bounds(now);
    shown.insert("resetsAt".into(), end.to_string().into());
    let (amount, calls) = budget.limits_in(start.as_second());
    if let Some(amount) = amount {
        shown.insert("amount".into(), amount.to_string().into());
        shown.insert("currency".into(), policy.currency.as_ref().map_or("", Currency::as_str).into());
    }
    if let Some(calls) = calls {
        shown.insert("calls".into(), calls.into());
    }
    let BudgetStanding { state, remaining } = context.state.leases.standing(&budget.uid);
    let state = match state {
        BudgetState::Available => "available",
        BudgetState::Exhausted => "exhausted",
        BudgetState::Unknown => "unknown",
    };
    shown.insert("state".into(), state.into());
    if let Some(Remaining { amount, calls, spent_amount, spent_calls, age }) = remaining {
        let amounts = |amount: Option<Micros>, calls: Option<u64>| {
            let amount = amount.filter(|_| budget.amount.is_some()).map(|amount| ("amount", amount.to_string().into()));
            let calls = calls.filter(|_| budget.calls.is_some()).map(|calls| ("calls", calls.into()));
            Value::Object(amount.into_iter().chain(calls).map(|(name, value)| (name.to_owned(), value)).collect())
        };
        shown.insert("remaining".into(), amounts(amount, calls));
        shown.insert("spent".into(), amounts(Some(spent_amount), Some(spent_calls)));
        shown.insert("ledgerAgeMs".into(), u64::try_from(age.as_millis()).unwrap_or(u64::MAX).into());
    }
    Value::Object(shown)
}

/// Returns the tools that refuse the caller's calls at the moment, or let only a few through.
fn paused(context: &RequestContext<'_>) -> Vec<Value> {
    let (state, principal) = (context.state, context.caller.principal);
    let (now, uid) = (state.tick(), &principal.model().uid);
    let servers = &context.policy.tenant_policy().servers;
    let millis = |time: std::time::Duration| u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let reported = state.stuck.of(now, uid).into_iter().filter_map(|reported| {
        let after = millis(reported.retry_after);
        let mut shown = json!({"reason": "reported_stuck", "state": "open", "retryAfterMs": after});
        if let Subject::Tool { server_uid, tool } = reported.subject {
            let server = servers.iter().find(|server| server.uid == server_uid)?;
            shown["server"] = server.name.as_str().into();
            shown["tool"] = server.tool(&tool).map_or(&*tool, Tool::wire_name).into();
        }
        Some((after, shown))
    });
    let breakers = state.breakers.statuses(now, uid).into_iter().filter_map(|(key, status)| {
        // The shared breaker of a tool that the caller may not call is none of its business.
        let view = principal.server(&key.server).ok().filter(|view| view.server().uid == key.server_uid)?;
        let tool = view.tool_of_server(&key.tool)?.tool();
        let after = millis(status.retry_after);
        let shown = json!({
            "server": key.server, "tool": tool.wire_name(), "reason": "breaker_open", "state": status.state.as_str(),
            "retryAfterMs": after,
        });
        Some((after, shown))
    });
    let mut paused: Vec<(u64, Value)> = reported.chain(breakers).collect();
    paused.sort_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.to_string().cmp(&right.to_string())));
    paused.truncate(MAX_PAUSED);
    paused.into_iter().map(|(_, shown)| shown).collect()
}
