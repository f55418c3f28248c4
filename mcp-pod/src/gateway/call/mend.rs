//! What is mended in a result, because it says the same afterwards and clients could not read it otherwise: `null` for a member that
//! is absent, which some servers in C# and Java write, and half a character, where a server in JavaScript cut a text.
//!
//! Everything else stays as the server wrote it, byte for byte.

use std::borrow::Cow;
use std::fmt;

use mcp_fleet_policy::json::{Value, write_str};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members of a content block that are objects with optional members.
const PARTS: [&str; 2] = ["annotations", "resource"];

/// Returns whether a result has `null` for a member that MCP defines to be absent or something else.
pub(super) fn has_nulls(result: &Value<'_>) -> bool {
    let in_members =
        |value: &Value<'_>| value.as_object().is_some_and(|members| members.iter().any(|(_, it)| is_null(it)));
    let in_block =
        |block: &Value<'_>| in_members(block) || PARTS.iter().filter_map(|part| block.get(part)).any(in_members);
    in_members(result)
        || result.get("content").and_then(Value::as_array).is_some_and(|blocks| blocks.iter().any(in_block))
}

const fn is_null(value: &Value<'_>) -> bool {
    matches!(value, Value::Null)
}

/// Returns a result without such members. None if it is no JSON object.
pub(super) fn without_nulls(result: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(result.len());
    write_members(&serde_json::from_slice(result).ok()?, &mut out, |name, value, out| match (name, list(value)) {
        ("content", Some(blocks)) => {
            write_list(&blocks, out, |block, out| match members(block) {
                Some(block) => write_members(&block, out, |name, value, out| match members(value) {
                    Some(part) if PARTS.contains(&name) => write_members(&part, out, |_, value, out| copy(value, out)),
                    _ => copy(value, out),
                }),
                None => copy(block, out),
            });
        }
        _ => copy(value, out),
    });
    Some(out)
}

/// The members of an object, as they are written.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Read)
    }
}

/// The name of a member, which is borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn members(value: &RawValue) -> Option<Members<'_>> {
    value.get().starts_with('{').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    value.get().starts_with('[').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

/// Writes the members that are not `null`.
fn write_members(Members(all): &Members<'_>, out: &mut Vec<u8>, write: impl Fn(&str, &RawValue, &mut Vec<u8>)) {
    out.push(b'{');
    let present = all.iter().filter(|(_, value)| value.get() != "null");
    for (index, (name, value)) in present.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_str(name, out);
        out.push(b':');
        write(name, value, out);
    }
    out.push(b'}');
}

fn write_list(all: &[&RawValue], out: &mut Vec<u8>, write: impl Fn(&RawValue, &mut Vec<u8>)) {
    out.push(b'[');
    for (index, value) in all.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(value, out);
    }
    out.push(b']');
}

fn copy(value: &RawValue, out: &mut Vec<u8>) {
    out.extend_from_slice(value.get().as_bytes());
}

/// Returns a text of JSON in which each `\u` escape of half a surrogate pair is one of U+FFFD, the replacement character.
pub(super) fn without_lone_surrogates(text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        let Some(first) = surrogate(text, at) else {
            // Also the second backslash of two.
            at += 2;
            continue;
        };
        if first == Half::High && surrogate(text, at + ESCAPE) == Some(Half::Low) {
            at += 2 * ESCAPE;
            continue;
        }
        if let Some(digits) = out.get_mut(at + 2..at + ESCAPE) {
            digits.copy_from_slice(b"fffd");
        }
        at += ESCAPE;
    }
    out
}

/// Length of `\uXXXX`.
const ESCAPE: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

/// Returns which half of a pair the escape at a position is, if it is one.
fn surrogate(text: &[u8], at: usize) -> Option<Half> {
    let digits = text.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    match u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()? {
        0xD800..=0xDBFF => Some(Half::High),
        0xDC00..=0xDFFF => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mcp_fleet_policy::json::{Limits, parse};

    use super::*;

    fn mended(text: &str) -> Option<String> {
        let value = parse(text.as_bytes(), &Limits::RESULT).unwrap();
        has_nulls(&value).then(|| String::from_utf8(without_nulls(text.as_bytes()).unwrap()).unwrap())
    }

    #[test]
    fn members_that_are_null_are_left_out_and_the_rest_stays() {
        for (text, expected) in [
            (r#"{"content":[],"_meta":null}"#, r#"{"content":[]}"#),
            (r#"{"resultType":null, "structuredContent":null,"n": 1.50e2}"#, r#"{"n":1.50e2}"#),
            (
                r#"{"content":[{"type":"text","text":"x","annotations":null},1,{"annotations":{"audience":null,"priority": 12345678901234567890}}]}"#,
                r#"{"content":[{"type":"text","text":"x"},1,{"annotations":{"priority":12345678901234567890}}]}"#,
            ),
            (
                r#"{"\u005fmeta":null,"content":[{"resource":{"uri":"a","text":null}}]}"#,
                r#"{"content":[{"resource":{"uri":"a"}}]}"#,
            ),
        ] {
            assert_eq!(mended(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            [r#"{"structuredContent":{"a":null}}"#, r#"{"content":[null,[null]]}"#, r#"{"_meta":{"a":null}}"#, "{}"]
        {
            assert_eq!(mended(text), None, "{text}");
        }
    }

    #[test]
    fn half_a_character_becomes_a_replacement() {
        for (text, expected) in [
            (r#""abc\ud83d""#, r#""abc\ufffd""#),
            (r#""\uDE00x""#, r#""\ufffdx""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\u0041""#, r#""\ufffd\u0041""#),
            (r#""\\ud83d\\\ud83d""#, r#""\\ud83d\\\ufffd""#),
            (r#""\ud83d\ude00\n""#, r#""\ud83d\ude00\n""#),
            (r#""\ud8"#, r#""\ud8"#),
            (r#""\"#, r#""\"#),
        ] {
            assert_eq!(String::from_utf8(without_lone_surrogates(text.as_bytes())).unwrap(), expected, "{text}");
        }
    }
}
