//! Converts a policy from the wire to the model and checks every value.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
use mcp_fleet_policy::model::{
    Argument, Breaker, Budget, BudgetMode, DefinitionDigest, Grant, GrantedTool, MAX_OTHER_AUDIENCES, Period,
    Principal, PrincipalLimits, Selector, Server, ServerLimits, SlowCalls, StaleAfter, TenantLimits, TenantPolicy,
    Tool, TopUp, Uid, VerificationKey,
};
use mcp_fleet_policy::price::{Pointer, ResultPrice};
use mcp_fleet_policy::units::{Bytes, Micros};

use super::ConvertError;
use super::field::{each, invalid, require, text};
use super::rule_from_wire::{arguments, shown};
use super::table::Known;
use crate::{feature, wire};

/// The largest number of grants that one principal may hold: a principal refers to at most so many scopes.
pub const MAX_HELD: usize = 64;
/// The largest number of grants that all principals together may hold, each counted as often as it is held. A reference
/// takes a byte or two on the wire and several times as much in memory.
pub const MAX_ALL_HELD: usize = 512 * 1024;

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
        argument_lists,
        grants,
        without_built_in_tools,
        allowed_origins,
        other_audiences,
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
    require(other_audiences.len() <= MAX_OTHER_AUDIENCES, "other_audiences", "a list of at most 17 origins")?;
    let mut reader = Reader::new(argument_lists, grants)?;
    Ok(TenantPolicy {
        tenant: text(tenant, "tenant")?,
        tenant_uid: uid(tenant_uid, "tenant_uid")?,
        generation,
        suspended,
        audience: text(audience, "audience")?,
        other_audiences: each(other_audiences, |origin| text(origin, "other_audiences"))?,
        issuer: text(issuer, "issuer")?,
        keys: each(keys, key)?,
        session_key,
        traffic: TenantLimits { calls_per_minute, max_concurrent_calls },
        built_in_tools: !without_built_in_tools,
        allowed_origins: each(allowed_origins, |origin| text(origin, "allowed_origins"))?,
        stale_after: StaleAfter { read: Duration::from_millis(read_ms), write: Duration::from_millis(write_ms) },
        currency,
        servers: each(servers, |message| reader.server(message))?,
        principals: each(principals, |message| reader.principal(message))?,
        budgets: each(budgets, budget)?,
    })
}

/// Converts what can be shared, from either form. Equal parts become shared in both.
struct Reader {
    /// The table of the shared form.
    lists: Vec<Arc<[Argument]>>,
    /// The table of the shared form.
    grants: Vec<Arc<Grant>>,
    known_lists: Known<[Argument]>,
    known_grants: Known<Grant>,
    /// Number of grants that the principals so far hold.
    held: usize,
}

impl Reader {
    fn new(lists: Vec<wire::ArgumentList>, grants: Vec<wire::Grant>) -> Result<Self, ConvertError> {
        let mut reader = Self {
            lists: each(lists, |wire::ArgumentList { items }| Ok(arguments(items)?.into()))?,
            grants: Vec::new(),
            known_lists: Known::default(),
            known_grants: Known::default(),
            held: 0,
        };
        reader.grants = each(grants, |message| Ok(Arc::new(reader.grant(message)?)))?;
        Ok(reader)
    }

    /// Returns the list at a position of the table.
    fn list(&self, position: u32) -> Result<Arc<[Argument]>, ConvertError> {
        at(&self.lists, position).ok_or(invalid("argument_list", "a position in argument_lists"))
    }

    fn server(&mut self, server: wire::Server) -> Result<Server, ConvertError> {
        let wire::Server {
            name,
            uid: id,
            upstream,
            identity,
            tools,
            limits,
            breaker: breaker_settings,
            loops: loop_settings,
            addresses,
        } = server;
        let wire::ServerLimits { timeout_ms, max_request_bytes, max_response_bytes, max_concurrent_calls } =
            limits.ok_or(ConvertError::Missing("server.limits"))?;
        let only = Some(upstream).filter(|address| addresses.is_empty() && !address.is_empty());
        let address = |address: String| address.parse::<SocketAddr>();
        let addresses = addresses.into_iter().chain(only).map(address).collect::<Result<_, _>>();
        Ok(Server {
            name: text(name, "server.name")?,
            uid: uid(id, "server.uid")?,
            addresses: addresses.map_err(|_| invalid("server.addresses", "IP addresses with ports"))?,
            identity: text(identity, "server.identity")?,
            tools: each(tools, |message| self.tool(message))?,
            limits: ServerLimits {
                timeout: Duration::from_millis(timeout_ms),
                max_request: Bytes::new(max_request_bytes),
                max_response: Bytes::new(max_response_bytes),
                max_concurrent_calls,
            },
            breaker: breaker_settings.map_or(Ok(Breaker::DEFAULT), breaker)?,
            loops: loop_settings.map_or(Ok(LoopSettings::DEFAULT), loops)?,
        })
    }

    fn tool(&mut self, tool: wire::Tool) -> Result<Tool, ConvertError> {
        let wire::Tool {
            name,
            class: kind,
            arguments: contained,
            price_micros,
            argument_list,
            polls_tolerated,
            result_price: stated,
            title,
            description,
            definition,
            alias,
        } = tool;
        Ok(Tool {
            name: text(name, "tool.name")?,
            alias: alias.map(|alias| text(alias, "tool.alias")).transpose()?,
            class: class(kind)?,
            arguments: match argument_list {
                Some(position) => self.list(position)?,
                None => self.known_lists.share(arguments(contained)?),
            },
            price: Micros::new(price_micros),
            result_price: stated.map(result_price).transpose()?.map(Arc::new),
            polls: if polls_tolerated { Polls::Tolerated } else { Polls::Limited },
            shown: shown(title, description),
            definition: match &definition[..] {
                [] => None,
                digest => {
                    Some(DefinitionDigest(digest.try_into().map_err(|_| invalid("tool.definition", "32 bytes long"))?))
                }
            },
        })
    }

    fn principal(&mut self, principal: wire::Principal) -> Result<Principal, ConvertError> {
        let wire::Principal {
            namespace,
            name,
            uid: id,
            suspended,
            revoked_until,
            grants,
            limits,
            held,
            breakers_cleared,
        } = principal;
        let wire::PrincipalLimits { calls_per_minute, burst, max_concurrent_calls } =
            limits.ok_or(ConvertError::Missing("principal.limits"))?;
        let number = grants.len().saturating_add(held.len());
        require(number <= MAX_HELD, "principal.held", "a list of at most 64 grants")?;
        self.held = self.held.saturating_add(number);
        require(self.held <= MAX_ALL_HELD, "principals", "a list with at most 524288 held grants in total")?;
        let contained = each(grants, |message| {
            let grant = self.grant(message)?;
            Ok(self.known_grants.share(grant))
        })?;
        let held = each(held, |position| {
            at(&self.grants, position).ok_or(invalid("principal.held", "a list of positions in grants"))
        })?;
        Ok(Principal {
            namespace: text(namespace, "principal.namespace")?,
            name: text(name, "principal.name")?,
            uid: uid(id, "principal.uid")?,
            suspended,
            revoked_until,
            breakers_cleared,
            grants: contained.into_iter().chain(held).collect(),
            limits: PrincipalLimits { calls_per_minute, burst, max_concurrent_calls },
        })
    }

    fn grant(&mut self, grant: wire::Grant) -> Result<Grant, ConvertError> {
        let wire::Grant { scope, server_uid, tools, classes } = grant;
        Ok(Grant {
            scope: text(scope, "grant.scope")?,
            server_uid: uid(server_uid, "grant.server_uid")?,
            tools: each(tools, |message| self.granted_tool(message))?,
            classes: each(classes, class)?,
        })
    }

    fn granted_tool(&mut self, tool: wire::GrantedTool) -> Result<GrantedTool, ConvertError> {
        let wire::GrantedTool { name, arguments: contained, argument_list } = tool;
        let list = match (argument_list, contained) {
            (Some(position), _) => Some(self.list(position)?),
            (None, Some(wire::ArgumentList { items })) => Some(self.known_lists.share(arguments(items)?)),
            (None, None) => None,
        };
        Ok(GrantedTool { name: text(name, "grant.tool.name")?, arguments: list })
    }
}

/// Returns the part at a position of a table.
fn at<T: ?Sized>(table: &[Arc<T>], position: u32) -> Option<Arc<T>> {
    table.get(usize::try_from(position).ok()?).cloned()
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

fn breaker(breaker: wire::Breaker) -> Result<Breaker, ConvertError> {
    let wire::Breaker { error_percent, slow_calls, minimum_calls, open_for_ms, half_open_calls } = breaker;
    let percent = |value: u32, field| require((1..=100).contains(&value), field, "a percentage from 1 to 100");
    percent(error_percent, "breaker.error_percent")?;
    require((2..=100).contains(&minimum_calls), "breaker.minimum_calls", "a number from 2 to 100")?;
    require((2..=10).contains(&half_open_calls), "breaker.half_open_calls", "a number from 2 to 10")?;
    let slow_calls = match slow_calls {
        None => None,
        Some(wire::SlowCalls { percent: share, duration_ms }) => {
            percent(share, "breaker.slow_calls.percent")?;
            Some(SlowCalls { percent: share, duration: Duration::from_millis(duration_ms) })
        }
    };
    let open_for = Duration::from_millis(open_for_ms);
    Ok(Breaker { error_percent, slow_calls, minimum_calls, open_for, half_open_calls })
}

fn key(key: wire::VerificationKey) -> Result<VerificationKey, ConvertError> {
    let wire::VerificationKey { kid, point } = key;
    require(point.len() == 65 && point[0] == 4, "key.point", "an uncompressed P-256 point")?;
    Ok(VerificationKey { kid: text(kid, "key.kid")?, point })
}

fn loops(settings: wire::Loops) -> Result<LoopSettings, ConvertError> {
    let wire::Loops { mode, window_ms, identical_calls, repeated_errors, cycle_repeats, cool_down_ms } = settings;
    let mode = match wire::LoopMode::try_from(mode) {
        Ok(wire::LoopMode::Enforce) => Mode::Enforce,
        Ok(wire::LoopMode::Monitor) => Mode::Monitor,
        Ok(wire::LoopMode::Disabled) => Mode::Disabled,
        Ok(wire::LoopMode::Unspecified) | Err(_) => return Err(ConvertError::Missing("loops.mode")),
    };
    Ok(LoopSettings {
        mode,
        window: Duration::from_millis(window_ms),
        identical_calls,
        repeated_errors,
        cycle_repeats,
        cool_down: Duration::from_millis(cool_down_ms),
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

fn result_price(price: wire::ResultPrice) -> Result<ResultPrice, ConvertError> {
    let wire::ResultPrice { pointer, minimum_micros } = price;
    let invalid = ConvertError::Invalid { field: "tool.result_price.pointer", expected: "a JSON Pointer" };
    Ok(ResultPrice { pointer: Pointer::parse(&pointer).ok_or(invalid)?, minimum: Micros::new(minimum_micros) })
}

fn budget(budget: wire::Budget) -> Result<Budget, ConvertError> {
    let wire::Budget { name, uid: id, selector, period, amount_micros, calls, monitor, top_up } = budget;
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
        mode: if monitor { BudgetMode::Monitor } else { BudgetMode::Enforce },
        top_up: top_up.map(|wire::TopUp { period_start, amount_micros, calls }| TopUp {
            start: period_start,
            amount: Micros::new(amount_micros),
            calls,
        }),
    })
}
