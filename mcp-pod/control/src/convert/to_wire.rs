//! Converts a policy from the model to the wire.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
use mcp_fleet_policy::model::{
    Argument, ArrayRule, Breaker, Budget, BudgetMode, DefinitionDigest, Grant, GrantedTool, JsonRule, MapRule,
    PathRule, Period, Principal, PrincipalLimits, Rule, Scalar, Selector, Server, ServerLimits, Shown, SlowCalls,
    StaleAfter, StringRule, TenantLimits, TenantPolicy, Tool, TopUp, VerificationKey,
};
use mcp_fleet_policy::price::ResultPrice;

use super::table::Table;
use crate::form::Form;
use crate::{feature, wire};

/// Converts a policy to its message in this form.
pub fn to_wire(policy: &TenantPolicy, form: Form) -> wire::Policy {
    let TenantPolicy {
        tenant,
        tenant_uid,
        generation,
        suspended,
        audience,
        other_audiences,
        issuer,
        keys,
        session_key,
        traffic,
        built_in_tools,
        allowed_origins,
        stale_after,
        currency,
        servers,
        principals,
        budgets,
    } = policy;
    let TenantLimits { calls_per_minute, max_concurrent_calls } = *traffic;
    let StaleAfter { read, write } = *stale_after;
    let mut writer = Writer::new(form);
    let servers = servers.iter().map(|server| writer.server(server)).collect();
    let principals = principals.iter().map(|principal| writer.principal(principal)).collect();
    wire::Policy {
        required_features: feature::required(policy, form),
        tenant: tenant.clone(),
        tenant_uid: tenant_uid.clone(),
        generation: *generation,
        suspended: *suspended,
        audience: audience.clone(),
        issuer: issuer.clone(),
        keys: keys.iter().map(key).collect(),
        session_key: session_key.clone(),
        traffic: Some(wire::Traffic { calls_per_minute, max_concurrent_calls }),
        stale_after: Some(wire::StaleAfter { read_ms: millis(read), write_ms: millis(write) }),
        currency: currency.as_ref().map(|currency| currency.as_str().to_owned()).unwrap_or_default(),
        servers,
        principals,
        budgets: budgets.iter().map(budget).collect(),
        argument_lists: writer.list_messages,
        grants: writer.grant_messages,
        without_built_in_tools: !built_in_tools,
        allowed_origins: allowed_origins.clone(),
        other_audiences: other_audiences.clone(),
    }
}

/// Converts what can be shared, and collects the tables of the shared form.
pub(super) struct Writer {
    form: Form,
    lists: Table<[Argument]>,
    list_messages: Vec<wire::ArgumentList>,
    grants: Table<Grant>,
    grant_messages: Vec<wire::Grant>,
}

impl Writer {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            lists: Table::default(),
            list_messages: Vec::new(),
            grants: Table::default(),
            grant_messages: Vec::new(),
        }
    }

    pub(super) fn server(&mut self, server: &Server) -> wire::Server {
        let Server { name, uid, addresses, identity, tools, limits, breaker: breaker_settings, loops: loop_settings } =
            server;
        let ServerLimits { timeout, max_request, max_response, max_concurrent_calls } = *limits;
        wire::Server {
            name: name.clone(),
            uid: uid.clone(),
            upstream: if let [only] = &addresses[..] { only.to_string() } else { String::new() },
            identity: identity.clone(),
            tools: tools.iter().map(|tool| self.tool(tool)).collect(),
            limits: Some(wire::ServerLimits {
                timeout_ms: millis(timeout),
                max_request_bytes: max_request.get(),
                max_response_bytes: max_response.get(),
                max_concurrent_calls,
            }),
            breaker: (*breaker_settings != Breaker::DEFAULT).then(|| breaker(breaker_settings)),
            loops: loops(loop_settings),
            addresses: addresses.iter().filter(|_| addresses.len() > 1).map(ToString::to_string).collect(),
        }
    }

    fn tool(&mut self, tool: &Tool) -> wire::Tool {
        let Tool { name, class: kind, arguments: list, price, result_price, polls, shown, definition, alias } = tool;
        let (title, description) = texts(shown.as_deref());
        let (arguments, argument_list) = match self.form {
            Form::Expanded => (arguments(list), None),
            Form::Shared if list.is_empty() => (Vec::new(), None),
            Form::Shared => (Vec::new(), Some(self.list(list))),
        };
        wire::Tool {
            name: name.clone(),
            class: class(*kind).into(),
            arguments,
            price_micros: price.get(),
            argument_list,
            result_price: result_price.as_deref().map(|ResultPrice { pointer, minimum }| wire::ResultPrice {
                pointer: pointer.as_str().to_owned(),
                minimum_micros: minimum.get(),
            }),
            polls_tolerated: match polls {
                Polls::Limited => false,
                Polls::Tolerated => true,
            },
            title,
            description,
            definition: definition.map(|DefinitionDigest(digest)| digest.to_vec()).unwrap_or_default(),
            alias: alias.clone(),
        }
    }

    pub(super) fn principal(&mut self, principal: &Principal) -> wire::Principal {
        let Principal { namespace, name, uid, suspended, revoked_until, breakers_cleared, grants, limits } = principal;
        let PrincipalLimits { calls_per_minute, burst, max_concurrent_calls } = *limits;
        let (mut contained, mut held) = (Vec::new(), Vec::new());
        match self.form {
            Form::Expanded => contained = grants.iter().map(|grant| self.grant(grant)).collect(),
            Form::Shared => held = grants.iter().map(|grant| self.shared_grant(grant)).collect(),
        }
        wire::Principal {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            suspended: *suspended,
            revoked_until: *revoked_until,
            grants: contained,
            limits: Some(wire::PrincipalLimits { calls_per_minute, burst, max_concurrent_calls }),
            held,
            breakers_cleared: *breakers_cleared,
        }
    }

    pub(super) fn grant(&mut self, grant: &Grant) -> wire::Grant {
        let Grant { scope, server_uid, tools, classes: kinds } = grant;
        wire::Grant {
            scope: scope.clone(),
            server_uid: server_uid.clone(),
            tools: tools.iter().map(|tool| self.granted_tool(tool)).collect(),
            classes: classes(kinds),
        }
    }

    fn granted_tool(&mut self, tool: &GrantedTool) -> wire::GrantedTool {
        let GrantedTool { name, arguments: list } = tool;
        let (contained, argument_list) = match (self.form, list) {
            (_, None) => (None, None),
            (Form::Expanded, Some(list)) => (Some(wire::ArgumentList { items: arguments(list) }), None),
            (Form::Shared, Some(list)) => (None, Some(self.list(list))),
        };
        wire::GrantedTool { name: name.clone(), arguments: contained, argument_list }
    }

    /// Returns the position of a list in its table.
    fn list(&mut self, list: &Arc<[Argument]>) -> u32 {
        let (position, is_new) = self.lists.position(list);
        if is_new {
            self.list_messages.push(wire::ArgumentList { items: arguments(list) });
        }
        position
    }

    /// Returns the position of a grant in its table.
    fn shared_grant(&mut self, grant: &Arc<Grant>) -> u32 {
        let (position, is_new) = self.grants.position(grant);
        if is_new {
            let message = self.grant(grant);
            self.grant_messages.push(message);
        }
        position
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn breaker(breaker: &Breaker) -> wire::Breaker {
    let Breaker { error_percent, slow_calls, minimum_calls, open_for, half_open_calls } = *breaker;
    let slow_calls =
        slow_calls.map(|SlowCalls { percent, duration }| wire::SlowCalls { percent, duration_ms: millis(duration) });
    wire::Breaker { error_percent, slow_calls, minimum_calls, open_for_ms: millis(open_for), half_open_calls }
}

fn key(key: &VerificationKey) -> wire::VerificationKey {
    let VerificationKey { kid, point } = key;
    wire::VerificationKey { kid: kid.clone(), point: point.clone() }
}

/// The default settings are left out, so that a gateway that does not know any reads the policy, and judges no loops.
fn loops(settings: &LoopSettings) -> Option<wire::Loops> {
    if *settings == LoopSettings::DEFAULT {
        return None;
    }
    let LoopSettings { mode, window, identical_calls, repeated_errors, cycle_repeats, cool_down } = *settings;
    let mode = match mode {
        Mode::Enforce => wire::LoopMode::Enforce,
        Mode::Monitor => wire::LoopMode::Monitor,
        Mode::Disabled => wire::LoopMode::Disabled,
    };
    Some(wire::Loops {
        mode: mode.into(),
        window_ms: millis(window),
        identical_calls,
        repeated_errors,
        cycle_repeats,
        cool_down_ms: millis(cool_down),
    })
}

fn class(class: Class) -> wire::Class {
    match class {
        Class::Read => wire::Class::Read,
        Class::Write => wire::Class::Write,
        Class::Destructive => wire::Class::Destructive,
    }
}

fn classes(classes: &[Class]) -> Vec<i32> {
    classes.iter().map(|kind| class(*kind).into()).collect()
}

pub(super) fn arguments(arguments: &[Argument]) -> Vec<wire::Argument> {
    let argument = |argument: &Argument| {
        let Argument { name, required, rule: kind, shown } = argument;
        let (title, description) = texts(shown.as_deref());
        wire::Argument { name: name.clone(), required: *required, rule: Some(rule(kind)), title, description }
    };
    arguments.iter().map(argument).collect()
}

/// Returns the title and the description.
fn texts(shown: Option<&Shown>) -> (Option<String>, Option<String>) {
    let Some(Shown { title, description }) = shown else { return (None, None) };
    (title.clone(), description.clone())
}

fn rule(one: &Rule) -> wire::Rule {
    use wire::rule::Kind;
    let kind = match one {
        Rule::Path(PathRule { within, extensions, dotfiles }) => {
            Kind::Path(wire::PathRule { within: within.clone(), extensions: extensions.clone(), dotfiles: *dotfiles })
        }
        Rule::Enum(values) => Kind::Enum(wire::EnumRule { values: values.clone() }),
        Rule::String(rule) => Kind::String(string(rule)),
        Rule::Integer { minimum, maximum } => Kind::Integer(wire::IntegerRule { minimum: *minimum, maximum: *maximum }),
        Rule::Number { minimum, maximum } => {
            Kind::Number(wire::NumberRule { minimum: minimum.clone(), maximum: maximum.clone() })
        }
        Rule::Boolean => Kind::Boolean(wire::BooleanRule {}),
        Rule::Const(scalar) => Kind::Const(constant(scalar)),
        Rule::Array(list) => Kind::Array(Box::new(array(list))),
        Rule::Object(properties) => Kind::Object(wire::ObjectRule { properties: arguments(properties) }),
        Rule::Map(map) => {
            let MapRule { names, values, max_properties } = &**map;
            let (names, values) = (Some(string(names)), Some(Box::new(rule(values))));
            Kind::Map(Box::new(wire::MapRule { names, values, max_properties: *max_properties }))
        }
        Rule::OneOf(options) => Kind::OneOf(wire::OneOfRule { options: options.iter().map(rule).collect() }),
        Rule::Nullable(inner) => Kind::Nullable(Box::new(rule(inner))),
        Rule::Json(JsonRule { max_bytes, max_depth }) => {
            Kind::Json(wire::JsonRule { max_bytes: *max_bytes, max_depth: *max_depth })
        }
    };
    wire::Rule { kind: Some(kind) }
}

fn string(rule: &StringRule) -> wire::StringRule {
    let StringRule { max_length, pattern, leading_dash } = rule;
    wire::StringRule { max_length: *max_length, pattern: pattern.clone(), leading_dash: *leading_dash }
}

fn constant(scalar: &Scalar) -> wire::ConstRule {
    use wire::const_rule::Value;
    let value = match scalar {
        Scalar::String(value) => Value::String(value.clone()),
        Scalar::Integer(value) => Value::Integer(*value),
        Scalar::Boolean(value) => Value::Boolean(*value),
    };
    wire::ConstRule { value: Some(value) }
}

fn array(list: &ArrayRule) -> wire::ArrayRule {
    let ArrayRule { item, max_items } = list;
    wire::ArrayRule { item: Some(Box::new(rule(item))), max_items: *max_items }
}

fn budget(budget: &Budget) -> wire::Budget {
    let Budget { name, uid, selector, period, amount, calls, mode, top_up } = budget;
    let Selector { principals, servers, classes: kinds } = selector;
    let period = match period {
        Period::Hour => wire::Period::Hour,
        Period::Day => wire::Period::Day,
        Period::Week => wire::Period::Week,
        Period::Month => wire::Period::Month,
    };
    let uids = |uids: &Vec<String>| wire::UidList { uids: uids.clone() };
    wire::Budget {
        name: name.clone(),
        uid: uid.clone(),
        selector: Some(wire::Selector {
            principals: principals.as_ref().map(uids),
            servers: servers.as_ref().map(uids),
            classes: kinds.as_ref().map(|kinds| wire::ClassList { classes: classes(kinds) }),
        }),
        period: period.into(),
        amount_micros: amount.map(mcp_fleet_policy::units::Micros::get),
        calls: *calls,
        monitor: *mode == BudgetMode::Monitor,
        top_up: top_up.map(|TopUp { start, amount, calls }| wire::TopUp {
            period_start: start,
            amount_micros: amount.get(),
            calls,
        }),
    }
}
