//! Property tests of the decoder: no input crashes it, and the arguments it forwards are the ones that were sent.

#![allow(clippy::unwrap_used)]

use http::HeaderMap;
use mcp_fleet_policy::json::write;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CallParams, McpHeaders, detect_era, read_message};
use crate::gateway::trace::StateSource;

/// Generates JSON that every parser reads alike.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

/// Decodes a body and returns the arguments of its call, as they would be forwarded.
fn decode(body: &[u8]) -> Option<Value> {
    let message = read_message(body).ok()?;
    let _ = detect_era(&McpHeaders::read(&HeaderMap::new()), &message);
    let params = CallParams::read(message.params, StateSource::Meta).ok()?;
    let mut out = Vec::new();
    write(params.arguments.as_ref()?, &mut out);
    assert!(!out.contains(&b'\n'), "the arguments must fit on one line of the envelope");
    Some(serde_json::from_slice(&out).unwrap())
}

/// Replaces each number by its leading digits: the parsers print numbers such as `1e2` differently.
fn normalise_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => format!("{:.10e}", number.as_f64().unwrap()).into(),
        Value::Array(items) => items.into_iter().map(normalise_numbers).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, normalise_numbers(value))).collect(),
        other => other,
    }
}

proptest! {
    #[test]
    fn arguments_are_forwarded_unchanged(arguments in prop::collection::hash_map(any::<String>(), value(), 0..6)) {
        let arguments = Value::from_iter(arguments);
        let params = json!({"name": "echo", "arguments": arguments, "_meta": {"x": 1}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        prop_assert_eq!(decode(body.as_bytes()), Some(arguments));
    }

    #[test]
    fn no_bytes_crash_the_decoder(body in prop::collection::vec(any::<u8>(), 0..300)) {
        decode(&body);
    }

    #[test]
    fn a_changed_byte_never_crashes_or_misleads_the_decoder(
        arguments in value(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let params = json!({"name": "echo", "arguments": {"a": arguments}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        // If the message is still accepted, another parser must read the same arguments in it.
        if let Some(decoded) = decode(&body) {
            let expected: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(normalise_numbers(decoded), normalise_numbers(expected["params"]["arguments"].clone()));
        }
    }
}
