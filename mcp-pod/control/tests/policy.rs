//! Tests of policies on the wire and in snapshots: round trips, and rejection of what is not fully understood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod forms;
mod strategy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_control::convert::{ConvertError, from_wire, to_wire};
use mcp_fleet_control::snapshot::{self, INDEX_FILE, MAX_CHUNK_BYTES, SnapshotError, SnapshotIndex, chunk_name};
use mcp_fleet_control::{DecodeError, Digest, EncodedPolicy, Form, decode, encode, encode_as, wire};
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Polls};
use mcp_fleet_policy::model::{
    Argument, ArrayRule, Breaker, Budget, BudgetMode, DefinitionDigest, Grant, GrantedTool, JsonRule, MapRule, Period,
    Principal, PrincipalLimits, Rule, Selector, Server, ServerLimits, Shown, StaleAfter, StringRule, TenantLimits,
    TenantPolicy, Tool, TopUp,
};
use mcp_fleet_policy::price::{Pointer, ResultPrice};
use mcp_fleet_policy::units::{Bytes, Micros};
use proptest::prelude::*;
use prost::Message as _;

fn plain() -> TenantPolicy {
    TenantPolicy {
        tenant: "acme".into(),
        tenant_uid: "0b0e".into(),
        generation: 7,
        suspended: false,
        audience: "https://gateway.acme-mcp.svc".into(),
        other_audiences: vec![],
        issuer: "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/0b0e".into(),
        keys: vec![],
        session_key: vec![1; 32],
        traffic: TenantLimits::default(),
        built_in_tools: true,
        allowed_origins: vec![],
        stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
        currency: None,
        servers: vec![],
        principals: vec![],
        budgets: vec![],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_policy_survives_the_wire_and_has_exactly_one_encoding_in_each_form(policy in strategy::policy()) {
        for form in [Form::Expanded, Form::Shared] {
            let encoded = encode_as(&policy, form);
            let back = decode(&encoded.bytes).unwrap();
            prop_assert_eq!((&back.policy, back.form, back.digest), (&policy, form, encoded.digest));
            prop_assert_eq!(encode_as(&back.policy, form), encoded);
            prop_assert_eq!(back.identity(), encode(&policy).digest);
        }
    }

    #[test]
    fn a_policy_survives_a_snapshot(policy in strategy::policy()) {
        let encoded = encode(&policy);
        let files = snapshot::write_files(policy.generation, &encoded, None).unwrap();
        prop_assert_eq!(snapshot::read_index(&files).unwrap().generation, policy.generation);
        let back = snapshot::read_policy(&files).unwrap();
        prop_assert_eq!(back.digest, encoded.digest);
        prop_assert_eq!(back.policy, policy);
    }

    #[test]
    fn truncated_or_changed_bytes_are_rejected_or_understood_completely(
        policy in strategy::policy(), at in any::<prop::sample::Index>(), bit in 0..8_u8, truncate in any::<bool>(),
        shared in any::<bool>(),
    ) {
        let mut bytes = encode_as(&policy, if shared { Form::Shared } else { Form::Expanded }).bytes;
        let at = at.index(bytes.len());
        if truncate { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        // A changed bit may give a different valid policy, which its digest reveals. It must never give a policy that
        // was not understood completely.
        if let Ok(other) = decode(&bytes) {
            prop_assert_eq!(encode_as(&other.policy, other.form).bytes, bytes);
        }
    }
}

/// Appends to a message a field that this version does not know.
fn with_unknown_field(mut bytes: Vec<u8>) -> Vec<u8> {
    // Field 99, wire type 0 (varint): tag (99 << 3) = 792, then the value 1.
    bytes.extend_from_slice(&[0x98, 0x06, 0x01]);
    bytes
}

#[test]
fn an_unknown_field_is_detected() {
    let bytes = encode(&plain()).bytes;
    assert!(decode(&bytes).is_ok());
    assert!(matches!(decode(&with_unknown_field(bytes)), Err(DecodeError::NotUnderstood)));
}

#[test]
fn an_unknown_field_in_a_nested_message_is_detected() {
    // prost reads `traffic` (field 10, wire type 2) twice by merging; the second one carries the unknown field.
    let mut bytes = encode(&plain()).bytes;
    let inner = with_unknown_field(vec![]);
    bytes.push(10 << 3 | 2);
    bytes.push(u8::try_from(inner.len()).unwrap());
    bytes.extend(inner);
    assert!(wire::Policy::decode(bytes.as_slice()).is_ok());
    assert!(matches!(decode(&bytes), Err(DecodeError::NotUnderstood)));
}

fn rejection(change: impl FnOnce(&mut wire::Policy)) -> ConvertError {
    let mut message = to_wire(&plain(), Form::Shared);
    assert!(from_wire(message.clone()).is_ok());
    change(&mut message);
    from_wire(message).unwrap_err()
}

#[test]
fn an_unknown_feature_is_rejected_by_name() {
    let error = rejection(|policy| policy.required_features.push("taint".into()));
    assert_eq!(error, ConvertError::UnknownFeature("taint".into()));
}

fn argument(rule: Rule) -> Argument {
    Argument { name: "a".into(), required: false, rule, shown: None }
}

fn tool(arguments: Vec<Argument>) -> Tool {
    Tool {
        name: "t".into(),
        class: Class::Read,
        arguments: arguments.into(),
        price: Micros::ZERO,
        result_price: None,
        polls: Polls::Limited,
        shown: None,
        definition: None,
        alias: None,
    }
}

/// Returns the features, besides those of the first version, that a policy with this tool and this granted list requires.
fn features(tool: Tool, granted: Option<Vec<Argument>>) -> Vec<String> {
    let server = Server {
        name: "files".into(),
        uid: "5e".into(),
        addresses: vec![],
        identity: "spiffe://x".into(),
        tools: vec![tool],
        limits: ServerLimits {
            timeout: Duration::from_secs(1),
            max_request: Bytes::new(1024),
            max_response: Bytes::new(1024),
            max_concurrent_calls: 1,
        },
        breaker: Breaker::DEFAULT,
        loops: LoopSettings::DEFAULT,
    };
    let tools = granted.map(|list| GrantedTool { name: "t".into(), arguments: Some(list.into()) });
    let grant =
        Grant { scope: "s".into(), server_uid: "5e".into(), tools: tools.into_iter().collect(), classes: vec![] };
    let principal = Principal {
        namespace: "acme".into(),
        name: "coder".into(),
        uid: "p".into(),
        suspended: false,
        revoked_until: None,
        breakers_cleared: None,
        grants: vec![Arc::new(grant)],
        limits: PrincipalLimits::default(),
    };
    let policy = TenantPolicy { servers: vec![server], principals: vec![principal], ..plain() };
    let mut names = to_wire(&policy, Form::Expanded).required_features;
    names.retain(|name| !matches!(name.as_str(), "v1" | "scope-arguments"));
    names
}

/// A rule around another one, and the features that it requires itself.
type Place<'p> = (&'p dyn Fn(Rule) -> Rule, &'p [&'p str]);

#[test]
fn what_a_tool_uses_is_required_wherever_it_is() {
    let names = || StringRule { max_length: 9, pattern: None, leading_dash: false };
    let map = |values| Rule::Map(Box::new(MapRule { names: names(), values, max_properties: 1 }));
    let nullable = |rule| Rule::Nullable(Box::new(rule));
    let list = |item| Rule::Array(Box::new(ArrayRule { item, max_items: 1 }));
    let object = |rule| Rule::Object(vec![argument(rule)]);
    let rules: [(Rule, &[&str]); 6] = [
        (Rule::Boolean, &[]),
        (map(Rule::Boolean), &["map-rules"]),
        (Rule::OneOf(vec![Rule::Boolean]), &["one-of-rules"]),
        (nullable(Rule::Boolean), &["nullable-rules"]),
        (Rule::Json(JsonRule { max_bytes: 1, max_depth: 0 }), &["json-rules"]),
        (Rule::String(names()), &[]),
    ];
    let places: [Place<'_>; 6] = [
        (&|rule| rule, &[]),
        (&map, &["map-rules"]),
        (&nullable, &["nullable-rules"]),
        (&object, &["nested-rules"]),
        (&list, &["nested-rules"]),
        (&|rule| object(map(nullable(list(rule)))), &["map-rules", "nested-rules", "nullable-rules"]),
    ];
    let text = Shown::new(None, Some("What it is for.".into())).map(Arc::new);
    for (place, own) in places {
        let expected = |name: &[&str]| {
            let all = ["nested-rules", "texts", "map-rules", "one-of-rules", "nullable-rules", "json-rules"];
            all.into_iter().filter(|one| name.contains(one) || own.contains(one)).collect::<Vec<_>>()
        };
        for (rule, name) in &rules {
            let argument = argument(place(rule.clone()));
            assert_eq!(features(tool(vec![argument.clone()]), None), expected(name), "{argument:?}");
            assert_eq!(features(tool(vec![]), Some(vec![argument.clone()])), expected(name), "{argument:?}");
        }
        let described = Rule::Object(vec![Argument { shown: text.clone(), ..argument(Rule::Boolean) }]);
        let mut nested = argument(place(described));
        let expected = expected(&["texts", "nested-rules"]);
        assert_eq!(features(tool(vec![nested.clone()]), None), expected);
        assert_eq!(features(tool(vec![]), Some(vec![nested.clone()])), expected);
        nested.shown = text.clone();
        assert_eq!(features(tool(vec![nested]), None), expected);
    }
    assert_eq!(features(Tool { shown: text, ..tool(vec![]) }, None), ["texts"]);
    assert_eq!(features(Tool { definition: Some(DefinitionDigest([0; 32])), ..tool(vec![]) }, None), ["definitions"]);
    assert_eq!(features(Tool { alias: Some("a".into()), ..tool(vec![]) }, None), ["aliases"]);
}

#[test]
fn a_required_feature_that_is_not_listed_is_detected() {
    let mut message = to_wire(&plain(), Form::Shared);
    message.required_features.clear();
    assert!(matches!(decode(&message.encode_to_vec()), Err(DecodeError::NotUnderstood)));
}

#[test]
fn missing_fields_and_unknown_kinds_are_rejected() {
    let server = wire::Server {
        name: "files".into(),
        uid: "5e".into(),
        identity: "spiffe://x".into(),
        limits: Some(wire::ServerLimits::default()),
        ..Default::default()
    };
    let tool = wire::Tool { name: "read".into(), class: wire::Class::Read.into(), ..Default::default() };
    let with_tool = |tool: wire::Tool| {
        let server = server.clone();
        rejection(move |policy| policy.servers.push(wire::Server { tools: vec![tool], ..server }))
    };
    assert_eq!(with_tool(wire::Tool { class: 0, ..tool.clone() }), ConvertError::Missing("class"));
    assert_eq!(with_tool(wire::Tool { class: 9, ..tool.clone() }), ConvertError::Missing("class"));
    let argument = wire::Argument { name: "path".into(), required: false, ..Default::default() };
    let tool_with = |argument| wire::Tool { arguments: vec![argument], ..tool.clone() };
    assert_eq!(with_tool(tool_with(argument.clone())), ConvertError::Missing("argument.rule"));
    let unknown = wire::Argument { rule: Some(wire::Rule { kind: None }), ..argument };
    assert_eq!(with_tool(tool_with(unknown)), ConvertError::Missing("rule"));
    assert_eq!(rejection(|policy| policy.traffic = None), ConvertError::Missing("traffic"));
    assert_eq!(rejection(|policy| policy.stale_after = None), ConvertError::Missing("stale_after"));
    let budget = wire::Budget { name: "b".into(), uid: "b0".into(), ..Default::default() };
    assert_eq!(rejection(|policy| policy.budgets.push(budget)), ConvertError::Missing("budget.selector"));
}

#[test]
fn invalid_values_are_rejected() {
    let field = |error| match error {
        ConvertError::Invalid { field, .. } => field,
        other => panic!("rejected with {other}"),
    };
    assert_eq!(field(rejection(|policy| policy.generation = 0)), "generation");
    assert_eq!(field(rejection(|policy| policy.tenant_uid = "a b".into())), "tenant_uid");
    assert_eq!(field(rejection(|policy| policy.tenant_uid = String::new())), "tenant_uid");
    assert_eq!(field(rejection(|policy| policy.session_key = vec![0; 31])), "session_key");
    assert_eq!(field(rejection(|policy| policy.currency = "usd".into())), "currency");
    let key = wire::VerificationKey { kid: "k".into(), point: vec![2; 65] };
    assert_eq!(field(rejection(|policy| policy.keys.push(key))), "key.point");
    let server = wire::Server {
        name: "files".into(),
        uid: "5e".into(),
        identity: "spiffe://x".into(),
        limits: Some(wire::ServerLimits::default()),
        ..Default::default()
    };
    let name = "files.acme-mcp.svc:8443".to_owned();
    let only = wire::Server { upstream: name.clone(), ..server.clone() };
    let one = wire::Server { addresses: vec!["10.0.0.7:8443".into(), name], ..server };
    for server in [only, one] {
        assert_eq!(field(rejection(|policy| policy.servers.push(server))), "server.addresses");
    }
}

#[test]
fn versions_that_know_one_address_of_a_server_understand_each_other() {
    let (one, other) = ("10.0.0.7:8443", "[fd00::7]:8443");
    let server = |upstream: &str, addresses: &[&str]| wire::Server {
        name: "files".into(),
        uid: "5e".into(),
        identity: "spiffe://x".into(),
        limits: Some(wire::ServerLimits::default()),
        upstream: upstream.into(),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        ..Default::default()
    };
    let policy = |server| {
        let mut policy = to_wire(&plain(), Form::Expanded);
        policy.servers = vec![server];
        from_wire(policy).unwrap()
    };
    let read = |server| policy(server).servers.remove(0).addresses;
    let parsed = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect::<Vec<_>>();
    // A version that knows one address reads and writes it in its own field, and refuses fields that it does not know.
    let written = |addresses: &[&str]| {
        let mut model = policy(server("", &[]));
        model.servers[0].addresses = parsed(addresses);
        let message = to_wire(&model, Form::Expanded);
        (message.servers[0].upstream.clone(), message.servers[0].addresses.clone(), message.required_features)
    };
    assert_eq!(read(server(one, &[])), parsed(&[one]));
    assert!(read(server("", &[])).is_empty());
    let needs = |features: &[String]| features.iter().any(|name| name == "several-addresses");
    let (upstream, addresses, features) = written(&[one]);
    assert_eq!((upstream.as_str(), addresses.len(), needs(&features)), (one, 0, false));
    let (upstream, addresses, features) = written(&[one, other]);
    assert_eq!((upstream.as_str(), needs(&features)), ("", true));
    assert_eq!(read(server("", &[&addresses[0], &addresses[1]])), parsed(&[one, other]));
}

#[test]
fn settings_of_breakers_are_checked_and_require_their_feature() {
    let server = |breaker| wire::Server {
        name: "files".into(),
        uid: "5e".into(),
        identity: "spiffe://x".into(),
        limits: Some(wire::ServerLimits::default()),
        breaker: Some(breaker),
        ..Default::default()
    };
    let valid = wire::Breaker {
        error_percent: 100,
        slow_calls: Some(wire::SlowCalls { percent: 1, duration_ms: 10 }),
        minimum_calls: 2,
        open_for_ms: 1000,
        half_open_calls: 10,
    };
    let mut message = to_wire(&plain(), Form::Shared);
    message.servers.push(server(valid));
    let policy = from_wire(message).unwrap();
    assert!(to_wire(&policy, Form::Expanded).required_features.contains(&"breaker".to_owned()));
    assert!(!to_wire(&plain(), Form::Expanded).required_features.contains(&"breaker".to_owned()));
    for (field, wrong) in [
        ("breaker.error_percent", wire::Breaker { error_percent: 0, ..valid }),
        ("breaker.error_percent", wire::Breaker { error_percent: 101, ..valid }),
        ("breaker.minimum_calls", wire::Breaker { minimum_calls: 1, ..valid }),
        ("breaker.minimum_calls", wire::Breaker { minimum_calls: 101, ..valid }),
        ("breaker.half_open_calls", wire::Breaker { half_open_calls: 1, ..valid }),
        ("breaker.slow_calls.percent", wire::Breaker { slow_calls: Some(wire::SlowCalls::default()), ..valid }),
    ] {
        let rejected = rejection(|policy| policy.servers.push(server(wrong)));
        assert!(matches!(rejected, ConvertError::Invalid { field: named, .. } if named == field), "{rejected}");
    }
}

/// Incompressible bytes in the place of an encoded policy.
fn noise(length: usize) -> EncodedPolicy {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect();
    EncodedPolicy { digest: Digest::of(&bytes), bytes }
}

#[test]
fn a_snapshot_is_split_into_chunks_that_fit_into_secrets() {
    let files = snapshot::write_files(7, &noise(2 * MAX_CHUNK_BYTES), None).unwrap();
    assert_eq!(snapshot::read_index(&files).unwrap().chunks, [0, 1, 2]);
    assert!(files.values().all(|file| file.len() <= MAX_CHUNK_BYTES));
    assert!(matches!(snapshot::write_files(7, &noise(4 * MAX_CHUNK_BYTES), None), Err(SnapshotError::TooLarge(_))));
}

#[test]
fn a_snapshot_leaves_the_previous_one_intact() {
    let mut before = None;
    for generation in 7..12 {
        let files = snapshot::write_files(generation, &noise(3 * MAX_CHUNK_BYTES), before.as_ref()).unwrap();
        let index = snapshot::read_index(&files).unwrap();
        assert_eq!(index.chunks.len(), 4);
        assert_eq!(index.chunks[0], 0, "the first chunk is written with the index");
        if let Some(before) = &before {
            let before: &SnapshotIndex = before;
            assert!(
                index.chunks[1..].iter().all(|number| !before.chunks.contains(number)),
                "{index:?} over {before:?}"
            );
        }
        before = Some(index);
    }
}

#[test]
fn an_index_with_invalid_chunk_numbers_is_rejected() {
    for chunks in ["[]", "[0,1,2,3,4]", "[7]"] {
        let index = format!(r#"{{"generation":7,"digest":"00","chunks":{chunks},"encoding":"gzip"}}"#);
        let files = BTreeMap::from([(INDEX_FILE.to_owned(), index.into_bytes())]);
        assert!(matches!(snapshot::read_index(&files), Err(SnapshotError::Chunks(_))), "{chunks}");
    }
}

fn files() -> BTreeMap<String, Vec<u8>> {
    snapshot::write_files(7, &encode(&plain()), None).unwrap()
}

#[test]
fn a_partly_updated_snapshot_gives_its_generation_but_no_policy() {
    let newer = TenantPolicy { generation: 8, suspended: true, ..plain() };
    let mut mixed = snapshot::write_files(8, &encode(&newer), None).unwrap();
    mixed.insert(chunk_name(0), files()[&chunk_name(0)].clone());
    assert!(matches!(snapshot::read_policy(&mixed), Err(SnapshotError::DigestMismatch)));
    assert_eq!(snapshot::read_index(&mixed).unwrap().generation, 8);
}

#[test]
fn a_snapshot_whose_index_has_the_wrong_generation_is_rejected() {
    let wrong = snapshot::write_files(9, &encode(&plain()), None).unwrap();
    assert!(matches!(snapshot::read_policy(&wrong), Err(SnapshotError::Generation { index: 9, policy: 7 })));
}

#[test]
fn a_snapshot_with_a_missing_file_is_rejected() {
    let mut without_chunk = files();
    without_chunk.remove(&chunk_name(0));
    assert!(matches!(snapshot::read_policy(&without_chunk), Err(SnapshotError::Missing(name)) if name == "chunk-0"));
    let mut without_index = files();
    without_index.remove(INDEX_FILE);
    assert!(matches!(snapshot::read_policy(&without_index), Err(SnapshotError::Missing(_))));
}

#[test]
fn a_decompression_bomb_is_rejected() {
    let bomb = EncodedPolicy { bytes: vec![0; 64 << 20], digest: Digest::of(b"") };
    let files = snapshot::write_files(7, &bomb, None).unwrap();
    assert!(matches!(snapshot::read_policy(&files), Err(SnapshotError::DecompressedTooLarge)));
}

#[test]
fn a_digest_survives_a_round_trip_through_its_text_form() {
    let digest = Digest::of(b"policy");
    assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    assert!("00".parse::<Digest>().is_err());
}

#[test]
fn a_reader_has_to_know_what_budgets_ask_of_it() {
    let requires = |feature: &str, budget: Budget| {
        let policy = TenantPolicy { budgets: vec![budget], ..plain() };
        to_wire(&policy, Form::Shared).required_features.contains(&feature.to_owned())
    };
    let plain = Budget {
        name: "daily".into(),
        uid: "b0".into(),
        selector: Selector::default(),
        period: Period::Day,
        amount: None,
        calls: Some(1),
        mode: BudgetMode::Enforce,
        top_up: None,
    };
    let topped_up = Budget { top_up: Some(TopUp { calls: 1, ..TopUp::default() }), ..plain.clone() };
    let monitored = Budget { mode: BudgetMode::Monitor, ..plain.clone() };
    for (feature, budget) in [("monitor-budgets", monitored), ("top-ups", topped_up)] {
        assert!(requires(feature, budget), "{feature}");
        assert!(!requires(feature, plain.clone()), "an older gateway refuses policies that it understands");
    }
}

#[test]
fn a_reader_has_to_know_prices_that_results_state() {
    let policy = |price: Option<ResultPrice>| {
        let mut policy = forms::repetitive(1);
        policy.servers[0].tools[0].price = Micros::new(7);
        policy.servers[0].tools[0].result_price = price.map(Into::into);
        to_wire(&policy, Form::Shared)
    };
    let stated = policy(Some(ResultPrice { pointer: Pointer::parse("/cost").unwrap(), minimum: Micros::ZERO }));
    assert!(stated.required_features.contains(&"result-prices".to_owned()));
    assert_eq!(stated.servers[0].tools[0].price_micros, 7, "read without the feature, it is not free");
    assert!(!policy(None).required_features.contains(&"result-prices".to_owned()));
    let mut wrong = stated;
    wrong.servers[0].tools[0].result_price.as_mut().unwrap().pointer = "cost".into();
    let expected = ConvertError::Invalid { field: "tool.result_price.pointer", expected: "a JSON Pointer" };
    assert_eq!(from_wire(wrong), Err(expected));
}

#[test]
fn a_reader_without_web_pages_does_not_get_a_policy_that_allows_some() {
    let needs = |policy: &TenantPolicy| {
        to_wire(policy, Form::Shared).required_features.iter().any(|name| name == "allowed-origins")
    };
    assert!(!needs(&plain()));
    assert!(needs(&TenantPolicy { allowed_origins: vec!["https://app.example.com".into()], ..plain() }));
}

#[test]
fn a_reader_without_public_names_does_not_get_a_policy_that_accepts_some() {
    let features = |policy: &TenantPolicy| to_wire(policy, Form::Shared).required_features;
    let named = |count: usize| TenantPolicy {
        other_audiences: (0..count).map(|number| format!("https://{number}.example.com")).collect(),
        ..plain()
    };
    assert!(!features(&plain()).iter().any(|name| name == "other-audiences"));
    assert!(features(&named(1)).iter().any(|name| name == "other-audiences"));
    assert!(decode(&encode(&named(17)).bytes).is_ok());
    let invalid = |count| decode(&encode(&named(count)).bytes).is_err();
    assert!(invalid(18) && !invalid(17));
}
