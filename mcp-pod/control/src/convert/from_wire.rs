//! Converts a policy from the wire to the model and checks every value.

use std::net::SocketAddr;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{
    Budget, Grant, GrantedTool, Period, Principal, PrincipalLimits, Selector, Server, ServerLimits, StaleAfter,
    TenantLimits, TenantPolicy, Tool, Uid, VerificationKey,
};
use mcp_fleet_policy::units::{Bytes, Micros};

use super::ConvertError;
use super::field::{each, invalid, require, text};
use super::rule_from_wire::arguments;
use crate::{feature, wire};

/// Converts a message to a policy.
pub fn from_wire(message: wire::Policy) -> Result<TenantPolicy, ConvertError> {
    let wire::Policy {
        required_features,
        tenant,
        tenant_uid,
        generation,
        suspended,
        audience,
        issuer,
        keys,
        session_key,
        traffic,
        stale_after,
        currency,
        servers,
        principals,
        budgets,
    } = message;
    if let Some(unknown) = required_features.into_iter().find(|name| !feature::is_known(name)) {
        return Err(ConvertError::UnknownFeature(unknown));
    }
    require(generation > 0, "generation", "a number above zero")?;
    require(session_key.len() == 32, "session_key", "32 bytes long")?;
    let wire::Traffic { calls_per_minute, max_concurrent_calls } = traffic.ok_or(ConvertError::Missing("traffic"))?;
    let wire::StaleAfter { read_ms, write_ms } = stale_after.ok_or(ConvertError::Missing("stale_after"))?;
    let currency = match currency.as_str() {
        "" => None,
        code => Some(code.parse().map_err(|_| invalid("currency", "an ISO 4217 code"))?),
    };
    Ok(TenantPolicy {
        tenant: text(tenant, "tenant")?,
        tenant_uid: uid(tenant_uid, "tenant_uid")?,
        generation,
        suspended,
        audience: text(audience, "audience")?,
        issuer: text(issuer, "issuer")?,
        keys: each(keys, key)?,
        session_key,
        traffic: TenantLimits { calls_per_minute, max_concurrent_calls },
        stale_after: StaleAfter { read: Duration::from_millis(read_ms), write: Duration::from_millis(write_ms) },
        currency,
        servers: each(servers, server)?,
        principals: each(principals, principal)?,
        budgets: each(budgets, budget)?,
    })
}

fn uid(value: String, field: &'static str) -> Result<Uid, ConvertError> {
    let fits = (1..=128).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    require(fits, field, "a UID")?;
    Ok(value)
}

fn uids(list: wire::UidList, field: &'static str) -> Result<Vec<Uid>, ConvertError> {
    let wire::UidList { uids } = list;
    each(uids, |value| uid(value, field))
}

fn key(key: wire::VerificationKey) -> Result<VerificationKey, ConvertError> {
    let wire::VerificationKey { kid, point } = key;
    require(point.len() == 65 && point[0] == 4, "key.point", "an uncompressed P-256 point")?;
    Ok(VerificationKey { kid: text(kid, "key.kid")?, point })
}

fn server(server: wire::Server) -> Result<Server, ConvertError> {
    let wire::Server { name, uid: id, upstream, identity, tools, limits } = server;
    let wire::ServerLimits { timeout_ms, max_request_bytes, max_response_bytes, max_concurrent_calls } =
        limits.ok_or(ConvertError::Missing("server.limits"))?;
    let upstream = match upstream.as_str() {
        "" => None,
        address => {
            Some(address.parse::<SocketAddr>().map_err(|_| invalid("server.upstream", "an IP address and a port"))?)
        }
    };
    Ok(Server {
        name: text(name, "server.name")?,
        uid: uid(id, "server.uid")?,
        upstream,
        identity: text(identity, "server.identity")?,
        tools: each(tools, tool)?,
        limits: ServerLimits {
            timeout: Duration::from_millis(timeout_ms),
            max_request: Bytes::new(max_request_bytes),
            max_response: Bytes::new(max_response_bytes),
            max_concurrent_calls,
        },
    })
}

fn tool(tool: wire::Tool) -> Result<Tool, ConvertError> {
    let wire::Tool { name, class: kind, arguments: list, price_micros } = tool;
    Ok(Tool {
        name: text(name, "tool.name")?,
        class: class(kind)?,
        arguments: arguments(list)?,
        price: Micros::new(price_micros),
    })
}

fn class(number: i32) -> Result<Class, ConvertError> {
    match wire::Class::try_from(number) {
        Ok(wire::Class::Read) => Ok(Class::Read),
        Ok(wire::Class::Write) => Ok(Class::Write),
        Ok(wire::Class::Destructive) => Ok(Class::Destructive),
        Ok(wire::Class::Unspecified) | Err(_) => Err(ConvertError::Missing("class")),
    }
}

fn principal(principal: wire::Principal) -> Result<Principal, ConvertError> {
    let wire::Principal { namespace, name, uid: id, suspended, revoked_until, grants, limits } = principal;
    let wire::PrincipalLimits { calls_per_minute, burst, max_concurrent_calls } =
        limits.ok_or(ConvertError::Missing("principal.limits"))?;
    Ok(Principal {
        namespace: text(namespace, "principal.namespace")?,
        name: text(name, "principal.name")?,
        uid: uid(id, "principal.uid")?,
        suspended,
        revoked_until,
        grants: each(grants, grant)?,
        limits: PrincipalLimits { calls_per_minute, burst, max_concurrent_calls },
    })
}

fn grant(grant: wire::Grant) -> Result<Grant, ConvertError> {
    let wire::Grant { scope, server_uid, tools, classes } = grant;
    Ok(Grant {
        scope: text(scope, "grant.scope")?,
        server_uid: uid(server_uid, "grant.server_uid")?,
        tools: each(tools, granted_tool)?,
        classes: each(classes, class)?,
    })
}

fn granted_tool(tool: wire::GrantedTool) -> Result<GrantedTool, ConvertError> {
    let wire::GrantedTool { name, arguments: list } = tool;
    let list = list.map(|wire::ArgumentList { items }| arguments(items)).transpose()?;
    Ok(GrantedTool { name: text(name, "grant.tool.name")?, arguments: list })
}

fn budget(budget: wire::Budget) -> Result<Budget, ConvertError> {
    let wire::Budget { name, uid: id, selector, period, amount_micros, calls } = budget;
    let wire::Selector { principals, servers, classes } = selector.ok_or(ConvertError::Missing("budget.selector"))?;
    let period = match wire::Period::try_from(period) {
        Ok(wire::Period::Hour) => Period::Hour,
        Ok(wire::Period::Day) => Period::Day,
        Ok(wire::Period::Week) => Period::Week,
        Ok(wire::Period::Month) => Period::Month,
        Ok(wire::Period::Unspecified) | Err(_) => return Err(ConvertError::Missing("budget.period")),
    };
    Ok(Budget {
        name: text(name, "budget.name")?,
        uid: uid(id, "budget.uid")?,
        selector: Selector {
            principals: principals.map(|list| uids(list, "budget.selector.principals")).transpose()?,
            servers: servers.map(|list| uids(list, "budget.selector.servers")).transpose()?,
            classes: classes.map(|wire::ClassList { classes }| each(classes, class)).transpose()?,
        },
        period,
        amount: amount_micros.map(Micros::new),
        calls,
    })
}
