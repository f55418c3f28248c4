//! Random policies for property tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
use mcp_fleet_policy::model::{
    Argument, ArrayRule, Breaker, Budget, BudgetMode, DefinitionDigest, Grant, GrantedTool, JsonRule, MapRule,
    PathRule, Period, Principal, PrincipalLimits, Rule, Scalar, Selector, Server, ServerLimits, Shown, SlowCalls,
    StaleAfter, StringRule, TenantLimits, TenantPolicy, Tool, TopUp, VerificationKey,
};
use mcp_fleet_policy::price::{Pointer, ResultPrice};
use mcp_fleet_policy::units::{Bytes, Micros};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,12}"
}

fn uid() -> impl Strategy<Value = String> {
    "[0-9a-f]{8}-[0-9a-f]{4}"
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

fn rule() -> impl Strategy<Value = Rule> {
    let exact = -((1_i64 << 53) - 1)..(1_i64 << 53);
    let leaf = prop_oneof![
        (vec("/[a-z]{1,6}", 1..3), vec("[a-z]{2,4}", 0..3), any::<bool>())
            .prop_map(|(within, extensions, dotfiles)| Rule::Path(PathRule { within, extensions, dotfiles })),
        vec(".{0,8}", 0..4).prop_map(Rule::Enum),
        (any::<u32>(), option::of(".{0,8}"), any::<bool>()).prop_map(|(max_length, pattern, leading_dash)| {
            Rule::String(StringRule { max_length, pattern, leading_dash })
        }),
        (exact.clone(), exact).prop_map(|(minimum, maximum)| Rule::Integer { minimum, maximum }),
        ("-?[0-9]{1,4}", "[0-9]{1,4}\\.[0-9]{1,4}").prop_map(|(minimum, maximum)| Rule::Number { minimum, maximum }),
        Just(Rule::Boolean),
        ".{0,8}".prop_map(|value| Rule::Const(Scalar::String(value))),
        any::<i64>().prop_map(|value| Rule::Const(Scalar::Integer(value))),
        any::<bool>().prop_map(|value| Rule::Const(Scalar::Boolean(value))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), any::<u32>())
                .prop_map(|(item, max_items)| Rule::Array(Box::new(ArrayRule { item, max_items }))),
            vec((name(), any::<bool>(), inner.clone(), shown()), 0..3).prop_map(|list| Rule::Object(named(list))),
            (any::<u32>(), option::of(".{0,8}"), any::<bool>(), inner.clone(), any::<u32>()).prop_map(
                |(max_length, pattern, leading_dash, values, max_properties)| {
                    let names = StringRule { max_length, pattern, leading_dash };
                    Rule::Map(Box::new(MapRule { names, values, max_properties }))
                }
            ),
            vec(inner.clone(), 0..3).prop_map(Rule::OneOf),
            inner.prop_map(|rule| Rule::Nullable(Box::new(rule))),
            any::<(u32, u32)>().prop_map(|(max_bytes, max_depth)| Rule::Json(JsonRule { max_bytes, max_depth })),
        ]
    })
}

fn shown() -> impl Strategy<Value = Option<Arc<Shown>>> {
    (option::of(".{0,8}"), option::of(".{0,8}"))
        .prop_map(|(title, description)| Shown::new(title, description).map(Arc::new))
}

fn named(list: Vec<(String, bool, Rule, Option<Arc<Shown>>)>) -> Vec<Argument> {
    let argument = |(name, required, rule, shown)| Argument { name, required, rule, shown };
    list.into_iter().map(argument).collect()
}

fn arguments() -> impl Strategy<Value = Vec<Argument>> {
    vec((name(), any::<bool>(), rule(), shown()), 0..4).prop_map(named)
}

fn breaker() -> impl Strategy<Value = Breaker> {
    let slow = (1..=100_u32, any::<u32>())
        .prop_map(|(percent, duration)| SlowCalls { percent, duration: Duration::from_millis(duration.into()) });
    let own = (1..=100_u32, option::of(slow), 2..=100_u32, any::<u32>(), 2..=10_u32).prop_map(
        |(error_percent, slow_calls, minimum_calls, open_for, half_open_calls)| Breaker {
            error_percent,
            slow_calls,
            minimum_calls,
            open_for: Duration::from_millis(open_for.into()),
            half_open_calls,
        },
    );
    prop_oneof![Just(Breaker::DEFAULT), own]
}

fn server() -> impl Strategy<Value = Server> {
    let polls = prop_oneof![Just(Polls::Limited), Just(Polls::Tolerated)];
    let result_price = ("(/[a-z]{0,3}(~[01])?){1,3}", any::<u64>()).prop_map(|(pointer, minimum)| {
        let pointer = Pointer::parse(&pointer).expect("a pointer");
        Arc::new(ResultPrice { pointer, minimum: Micros::new(minimum) })
    });
    let definition = option::of(any::<[u8; 32]>().prop_map(DefinitionDigest));
    let tool = (
        name(),
        class(),
        arguments(),
        any::<u64>(),
        option::of(result_price),
        polls,
        shown(),
        definition,
        option::of(name()),
    )
        .prop_map(|(name, class, arguments, price, result_price, polls, shown, definition, alias)| Tool {
            name,
            class,
            arguments: arguments.into(),
            price: Micros::new(price),
            result_price,
            polls,
            shown,
            definition,
            alias,
        });
    let limits = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
        |(timeout, max_request, max_response, max_concurrent_calls)| ServerLimits {
            timeout: Duration::from_millis(timeout.into()),
            max_request: Bytes::new(max_request),
            max_response: Bytes::new(max_response),
            max_concurrent_calls,
        },
    );
    (name(), uid(), vec(any::<SocketAddr>(), 0..3), "spiffe://[a-z]{1,8}", vec(tool, 0..4), limits, breaker(), loops())
        .prop_map(|(name, uid, addresses, identity, tools, limits, breaker, loops)| {
            // The text form of an address has no flow label, and the operator never sets one.
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            let addresses = addresses.into_iter().map(plain).collect();
            Server { name, uid, addresses, identity, tools, limits, breaker, loops }
        })
}

fn loops() -> impl Strategy<Value = LoopSettings> {
    let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Monitor), Just(Mode::Disabled)];
    let settings = (mode, any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(mode, window, identical_calls, repeated_errors, cycle_repeats, cool_down)| LoopSettings {
            mode,
            window: Duration::from_millis(window.into()),
            identical_calls,
            repeated_errors,
            cycle_repeats,
            cool_down: Duration::from_millis(cool_down.into()),
        },
    );
    prop_oneof![Just(LoopSettings::DEFAULT), settings]
}

fn grant() -> impl Strategy<Value = Grant> {
    let tool = (name(), option::of(arguments()))
        .prop_map(|(name, arguments)| GrantedTool { name, arguments: arguments.map(Into::into) });
    (name(), uid(), vec(tool, 0..4), vec(class(), 0..3)).prop_map(|(scope, server_uid, tools, classes)| Grant {
        scope,
        server_uid,
        tools,
        classes,
    })
}

fn principal() -> impl Strategy<Value = Principal> {
    let limits = (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
        |(calls_per_minute, burst, max_concurrent_calls)| PrincipalLimits {
            calls_per_minute,
            burst,
            max_concurrent_calls,
        },
    );
    (name(), name(), uid(), any::<bool>(), any::<(Option<i64>, Option<i64>)>(), vec(grant(), 0..3), limits).prop_map(
        |(namespace, name, uid, suspended, (revoked_until, breakers_cleared), grants, limits)| Principal {
            namespace,
            name,
            uid,
            suspended,
            revoked_until,
            breakers_cleared,
            grants: grants.into_iter().map(Arc::new).collect(),
            limits,
        },
    )
}

/// Principals, of which each also holds what the first one holds.
fn principals() -> impl Strategy<Value = Vec<Principal>> {
    vec(principal(), 0..3).prop_map(|mut principals| {
        let common = principals.first().map(|first| first.grants.clone()).unwrap_or_default();
        principals.iter_mut().skip(1).for_each(|principal| principal.grants.extend(common.clone()));
        principals
    })
}

fn budget() -> impl Strategy<Value = Budget> {
    let uids = || option::of(vec(uid(), 0..3));
    let selector = (uids(), uids(), option::of(vec(class(), 0..3)))
        .prop_map(|(principals, servers, classes)| Selector { principals, servers, classes });
    let period = prop::sample::select(vec![Period::Hour, Period::Day, Period::Week, Period::Month]);
    let mode = prop::sample::select(vec![BudgetMode::Enforce, BudgetMode::Monitor]);
    let top_up = (any::<i64>(), any::<u64>(), any::<u64>());
    let top_up =
        option::of(top_up.prop_map(|(start, amount, calls)| TopUp { start, amount: Micros::new(amount), calls }));
    (name(), uid(), selector, period, any::<Option<u64>>(), any::<Option<u64>>(), mode, top_up).prop_map(
        |(name, uid, selector, period, amount, calls, mode, top_up)| Budget {
            name,
            uid,
            selector,
            period,
            amount: amount.map(Micros::new),
            calls,
            mode,
            top_up,
        },
    )
}

/// A random policy.
pub(crate) fn policy() -> impl Strategy<Value = TenantPolicy> {
    let key = (name(), vec(any::<u8>(), 64))
        .prop_map(|(kid, rest)| VerificationKey { kid, point: std::iter::once(4).chain(rest).collect() });
    let origins = || vec("https://[a-z]{1,8}", 0..3);
    let origins = (origins(), origins());
    let head =
        (name(), uid(), 1..u64::MAX, any::<(bool, bool)>(), origins, "https://[a-z]{1,8}", "https://[a-z]{1,8}/t");
    let secrets = (vec(key, 0..3), vec(any::<u8>(), 32));
    let limits = (any::<Option<u32>>(), any::<Option<u32>>(), any::<u32>(), any::<u32>(), option::of("[A-Z]{3}"));
    let lists = (vec(server(), 0..3), principals(), vec(budget(), 0..3));
    (head, secrets, limits, lists).prop_map(|(head, (keys, session_key), limits, (servers, principals, budgets))| {
        let (tenant, tenant_uid, generation, (suspended, built_in_tools), origins, audience, issuer) = head;
        let (allowed_origins, other_audiences) = origins;
        let (calls_per_minute, max_concurrent_calls, read, write, currency) = limits;
        TenantPolicy {
            tenant,
            tenant_uid,
            generation,
            suspended,
            audience,
            other_audiences,
            issuer,
            keys,
            session_key,
            built_in_tools,
            allowed_origins,
            traffic: TenantLimits { calls_per_minute, max_concurrent_calls },
            stale_after: StaleAfter {
                read: Duration::from_millis(read.into()),
                write: Duration::from_millis(write.into()),
            },
            currency: currency.map(|code| code.parse().expect("three capitals")),
            servers,
            principals,
            budgets,
        }
    })
}
