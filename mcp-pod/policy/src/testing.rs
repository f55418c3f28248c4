//! Random policies and calls for property tests. Alphabets are small, so that rules overlap and values hit bounds.

use std::borrow::Cow;
use std::time::Duration;

use proptest::prelude::*;

use crate::class::Class;
use crate::json::{Members, Value};
use crate::loops::{LoopSettings, Polls};
use crate::model::{
    Argument, ArrayRule, Breaker, Grant, GrantedTool, JsonRule, MapRule, PathRule, Principal, PrincipalLimits, Rule,
    Scalar, Server, ServerLimits, StaleAfter, StringRule, TenantLimits, TenantPolicy, Tool,
};
use crate::units::{Bytes, Micros};

const ROOTS: [&str; 6] = ["/", "/w", "/w/r", "/w/.h", "/w/.h/x", "/v"];
const PATHS: [&str; 14] = [
    "/",
    "/w",
    "/w/a.txt",
    "/w/r/a.md",
    "/w/r/../b.txt",
    "/w/.h",
    "/w/.h/x/a.txt",
    "/w/r/.g/a.md",
    "/wx/a.txt",
    "w/a",
    "/w//a",
    "/w/[.]g",
    "/v/~x",
    "/w/r/a.tar.gz",
];
const WORDS: [&str; 8] = ["", "a", "b", "ab", "-x", "/w/a.txt", "éé", "a\0"];
/// The words that an enumeration may contain.
const ENUM_WORDS: &[&str] = WORDS.split_at(7).0;
const NAMES: [&str; 4] = ["p", "q", "r", "s"];

fn some<T: Clone + std::fmt::Debug + 'static>(from: &'static [T], max: usize) -> impl Strategy<Value = Vec<T>> {
    prop::sample::subsequence(from, 1..=max)
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A rule for paths.
pub(crate) fn path_rule() -> impl Strategy<Value = Rule> {
    (some(&ROOTS, 2), prop::sample::subsequence(vec!["txt", "md", "gz", "tar.gz"], 0..=2), any::<bool>()).prop_map(
        |(within, extensions, dotfiles)| {
            Rule::Path(PathRule { within: owned(&within), extensions: owned(&extensions), dotfiles })
        },
    )
}

fn leaf() -> impl Strategy<Value = Rule> {
    let pattern = prop::option::of(prop::sample::select(vec!["[a-b]*", ".*", r"\w+", "/.*"]));
    let string = (0..4_u32, pattern, any::<bool>()).prop_map(|(max_length, pattern, leading_dash)| {
        Rule::String(StringRule { max_length: max_length * 3, pattern: pattern.map(str::to_owned), leading_dash })
    });
    let number = (-4..4_i64, 0..4_i64).prop_map(|(minimum, width)| Rule::Number {
        minimum: format!("{minimum}.5"),
        maximum: format!("{}.75", minimum + width + 1),
    });
    prop_oneof![
        3 => path_rule(),
        2 => some(ENUM_WORDS, 3).prop_map(|values| Rule::Enum(owned(&values))),
        1 => some(&PATHS, 3).prop_map(|values| Rule::Enum(owned(&values))),
        3 => string,
        2 => (-4..4_i64, 0..4_i64)
            .prop_map(|(minimum, width)| Rule::Integer { minimum, maximum: minimum + width }),
        2 => number,
        1 => Just(Rule::Boolean),
        1 => prop_oneof![
            any::<bool>().prop_map(Scalar::Boolean),
            (-2..2_i64).prop_map(Scalar::Integer),
            prop::sample::select(ENUM_WORDS).prop_map(|word| Scalar::String(word.to_owned())),
        ].prop_map(Rule::Const),
    ]
}

/// A rule with at most three levels.
pub(crate) fn rule() -> impl Strategy<Value = Rule> {
    leaf().prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0..3_u32)
                .prop_map(|(item, max_items)| Rule::Array(Box::new(ArrayRule { item, max_items }))),
            named(inner.clone()).prop_map(Rule::Object),
            (names(), inner.clone(), 0..3_u32).prop_map(|(names, values, max_properties)| {
                Rule::Map(Box::new(MapRule { names, values, max_properties }))
            }),
            prop::collection::vec(leaf().prop_filter("plain", |rule| !matches!(rule, Rule::Path(_))), 1..4)
                .prop_map(Rule::OneOf),
            inner.prop_map(|rule| Rule::Nullable(Box::new(rule))),
            (0..12_u32, 0..3_u32).prop_map(|(max_bytes, max_depth)| Rule::Json(JsonRule { max_bytes, max_depth })),
        ]
    })
}

/// A rule for names of properties.
fn names() -> impl Strategy<Value = StringRule> {
    let pattern = prop::option::of(prop::sample::select(vec!["[p-q]*", ".*"]));
    (0..3_u32, pattern, any::<bool>()).prop_map(|(max_length, pattern, leading_dash)| StringRule {
        max_length,
        pattern: pattern.map(str::to_owned),
        leading_dash,
    })
}

/// Up to three arguments with names from a small set.
pub(crate) fn arguments() -> impl Strategy<Value = Vec<Argument>> {
    named(rule())
}

fn named(rule: impl Strategy<Value = Rule>) -> impl Strategy<Value = Vec<Argument>> {
    (prop::sample::subsequence(&NAMES[..], 0..=3), prop::collection::vec((any::<bool>(), rule), 3)).prop_map(
        |(names, rules)| {
            names
                .iter()
                .zip(rules)
                .map(|(name, (required, rule))| Argument { name: (*name).to_owned(), required, rule, shown: None })
                .collect()
        },
    )
}

/// A string that some rule for paths could admit.
pub(crate) fn path() -> impl Strategy<Value = Value<'static>> {
    prop::sample::select(&PATHS[..]).prop_map(|path| Value::String(path.into()))
}

/// A value that some rule could admit.
pub(crate) fn value() -> impl Strategy<Value = Value<'static>> {
    let text = |texts: &'static [&'static str]| {
        prop::sample::select(texts).prop_map(|text| Value::String(Cow::Borrowed(text)))
    };
    let leaf = prop_oneof![
        3 => text(&PATHS),
        3 => text(&WORDS),
        2 => (-6..8_i64).prop_map(Value::Integer),
        1 => prop::sample::select(vec![-0.0, 0.5, 1.25, -2.5, 3.75]).prop_map(Value::Number),
        2 => any::<bool>().prop_map(Value::Bool),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            object(inner).prop_map(Value::Object),
        ]
    })
}

fn object(value: impl Strategy<Value = Value<'static>>) -> impl Strategy<Value = Members<'static>> {
    (prop::sample::subsequence(&NAMES[..], 0..=3), prop::collection::vec(value, 3))
        .prop_map(|(names, values)| names.into_iter().map(Cow::Borrowed).zip(values).collect())
}

/// A value that this rule often admits; purely random values mostly have the wrong type.
pub(crate) fn value_for(rule: &Rule) -> BoxedStrategy<Value<'static>> {
    let near: BoxedStrategy<Value<'static>> = match rule {
        Rule::Path(_) => path().boxed(),
        Rule::Enum(values) => {
            prop::sample::select(values.clone()).prop_map(|value| Value::String(value.into())).boxed()
        }
        Rule::String(_) => prop::sample::select(&WORDS[..]).prop_map(|word| Value::String(word.into())).boxed(),
        Rule::Integer { .. } | Rule::Number { .. } => (-6..8_i64).prop_map(Value::Integer).boxed(),
        Rule::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
        Rule::Const(Scalar::Boolean(truth)) => Just(Value::Bool(*truth)).boxed(),
        Rule::Const(Scalar::Integer(number)) => Just(Value::Integer(*number)).boxed(),
        Rule::Const(Scalar::String(text)) => Just(Value::String(text.clone().into())).boxed(),
        Rule::Array(items) => prop::collection::vec(value_for(&items.item), 0..3).prop_map(Value::Array).boxed(),
        Rule::Object(arguments) => members_for(arguments).prop_map(Value::Object).boxed(),
        Rule::Map(map) => object(value_for(&map.values)).prop_map(Value::Object).boxed(),
        Rule::OneOf(rules) => prop::sample::select(rules.clone()).prop_flat_map(|rule| value_for(&rule)).boxed(),
        Rule::Nullable(rule) => prop_oneof![2 => value_for(rule), 1 => Just(Value::Null)].boxed(),
        Rule::Json(_) => value().boxed(),
    };
    prop_oneof![6 => near, 1 => value()].boxed()
}

/// Members that these arguments often admit.
pub(crate) fn members_for(arguments: &[Argument]) -> BoxedStrategy<Members<'static>> {
    let members: Vec<_> = arguments
        .iter()
        .map(|argument| {
            let name = argument.name.clone();
            prop::option::weighted(0.9, value_for(&argument.rule))
                .prop_map(move |value| value.map(|value| (Cow::Owned(name.clone()), value)))
        })
        .collect();
    members.prop_map(|members| members.into_iter().flatten().collect()).boxed()
}

/// A tenant with one server `files` and one principal `coder`, for tests to change.
pub(crate) fn policy() -> TenantPolicy {
    TenantPolicy {
        tenant: "acme".into(),
        tenant_uid: "t-1".into(),
        generation: 7,
        suspended: false,
        audience: "https://gateway.acme-mcp.svc".into(),
        other_audiences: vec![],
        issuer: "https://operator.example/tenants/t-1".into(),
        keys: vec![],
        session_key: vec![0; 32],
        traffic: TenantLimits::default(),
        built_in_tools: true,
        allowed_origins: vec![],
        stale_after: StaleAfter { read: Duration::from_secs(60), write: Duration::from_secs(15) },
        currency: None,
        servers: vec![server("files", vec![])],
        principals: vec![principal("coder")],
        budgets: vec![],
    }
}

/// A server with UID `s-<name>`.
pub(crate) fn server(name: &str, tools: Vec<Tool>) -> Server {
    Server {
        name: name.into(),
        uid: format!("s-{name}"),
        addresses: vec![],
        identity: format!("spiffe://mcp-fleet.dev/tenant/t-1/server/s-{name}"),
        tools,
        limits: ServerLimits {
            timeout: Duration::from_secs(30),
            max_request: Bytes::new(262_144),
            max_response: Bytes::new(4 << 20),
            max_concurrent_calls: 16,
        },
        breaker: Breaker::DEFAULT,
        loops: LoopSettings::DEFAULT,
    }
}

/// A tool that costs nothing.
pub(crate) fn tool(name: &str, class: Class, arguments: Vec<Argument>) -> Tool {
    Tool {
        name: name.into(),
        class,
        arguments: arguments.into(),
        price: Micros::ZERO,
        result_price: None,
        polls: Polls::Limited,
        shown: None,
        definition: None,
        alias: None,
    }
}

/// A principal with UID `p-<name>`, without grants.
pub(crate) fn principal(name: &str) -> Principal {
    Principal {
        namespace: "acme".into(),
        name: name.into(),
        uid: format!("p-{name}"),
        suspended: false,
        revoked_until: None,
        breakers_cleared: None,
        grants: vec![],
        limits: PrincipalLimits::default(),
    }
}

/// A grant on the server `files`.
pub(crate) fn grant(scope: &str, tools: Vec<GrantedTool>, classes: Vec<Class>) -> Grant {
    Grant { scope: scope.into(), server_uid: "s-files".into(), tools, classes }
}

/// A grant of a tool by name with these arguments, or with those of the catalogue.
pub(crate) fn named_tool(name: &str, arguments: Option<Vec<Argument>>) -> GrantedTool {
    GrantedTool { name: name.into(), arguments: arguments.map(Into::into) }
}

/// A tool of any class with random arguments.
pub(crate) fn any_tool() -> impl Strategy<Value = Tool> {
    (prop::sample::select(&Class::ALL[..]), arguments()).prop_map(|(class, arguments)| tool("t", class, arguments))
}

/// A grant that may name the tool `t`, or cover it by its class, or neither.
pub(crate) fn any_grant() -> impl Strategy<Value = Grant> {
    let named = prop::option::weighted(0.8, prop::option::weighted(0.8, arguments()));
    (named, prop::sample::subsequence(&Class::ALL[..], 0..=3)).prop_map(|(named, classes)| {
        grant("any", named.map(|arguments| named_tool("t", arguments)).into_iter().collect(), classes)
    })
}

/// A grant that names the tool `t` with arguments close to its own; random arguments rarely admit anything.
pub(crate) fn near_grant(tool: &Tool) -> impl Strategy<Value = Grant> + use<> {
    let arguments: Vec<_> = tool
        .arguments
        .iter()
        .cloned()
        .map(|own| {
            let other = (any::<bool>(), rule(), Just(own.name.clone()));
            let other = other.prop_map(|(required, rule, name)| Argument { name, required, rule, shown: None });
            prop::option::weighted(0.9, prop_oneof![3 => Just(own), 1 => other])
        })
        .collect();
    arguments.prop_map(|arguments| {
        grant("near", vec![named_tool("t", Some(arguments.into_iter().flatten().collect()))], vec![])
    })
}

/// A tool, grants that may admit some calls of it, and a call.
pub(crate) fn tool_grants_and_call() -> impl Strategy<Value = (Tool, Vec<Grant>, Members<'static>)> {
    any_tool().prop_flat_map(|tool| {
        let grants = prop::collection::vec(prop_oneof![3 => near_grant(&tool), 2 => any_grant()], 1..4);
        let members = members_for(&tool.arguments);
        (Just(tool), grants, members)
    })
}
