//! Makes `metadata.managedFields` readable in JSON as it streams by: removes the `time` of its entries, and cuts what is
//! nested too deeply.
//!
//! A filter over bytes, not a parser: what it has to skip can be nested deeper than a parser follows. It needs no
//! recursion and keeps only the nesting and the key at hand. The text comes from the API server, which writes valid JSON
//! and writes these keys without escapes.

use bytes::Bytes;

const METADATA: &[u8] = b"metadata";
const MANAGED_FIELDS: &[u8] = b"managedFields";
const TIME: &[u8] = b"time";

/// Nesting in `managedFields` that is kept. What Kubernetes writes for its own kinds is half as deep, and `serde_json`
/// follows 128 levels.
const MAX_DEPTH: usize = 64;

/// The state between two pieces of a stream of JSON texts.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Open arrays and objects, the innermost last.
    open: Vec<Open>,
    /// Length of `open` outside the field managers that are being read.
    managers: Option<usize>,
    state: State,
    /// What was read of a member up to its key, with the comma before it. Not written before the key is known.
    pending: Vec<u8>,
    /// The key that was read last, or its beginning if it is long. Empty in arrays.
    key: Vec<u8>,
    in_string: bool,
    escaped: bool,
}

/// An open array or object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// An array; whether it is the value of `managedFields`.
    Array { managers: bool },
    /// An object that is the value of `metadata`.
    Metadata,
    /// An entry of `managedFields`.
    Manager,
    /// Another object.
    Object,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In a value, or between two texts.
    #[default]
    Value,
    /// In an object, before a key or its end.
    BeforeKey,
    /// In a key, or between it and its colon.
    Key,
    /// In the value of a member that is left out, at this depth in itself.
    Skip(usize),
    /// In an array or object that was cut, at this depth, itself included.
    Cut(usize),
}

impl Filter {
    /// Returns what is left of the next piece.
    pub(super) fn filter(&mut self, piece: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(piece.len());
        for &byte in piece {
            if self.in_string {
                self.next_in_string(byte, &mut out);
            } else {
                self.next(byte, &mut out);
            }
        }
        out.into()
    }

    fn next(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Value => match byte {
                b'{' | b'[' => self.enter(byte, out),
                b'}' | b']' => self.leave(byte, out),
                b',' if !matches!(self.open.last(), None | Some(Open::Array { .. })) => {
                    self.state = State::BeforeKey;
                    self.pending.push(byte);
                }
                _ => {
                    self.in_string = byte == b'"';
                    out.push(byte);
                }
            },
            State::BeforeKey if byte == b'}' => {
                out.append(&mut self.pending);
                self.leave(byte, out);
            }
            State::BeforeKey => {
                self.pending.push(byte);
                if byte == b'"' {
                    self.key.clear();
                    (self.state, self.in_string) = (State::Key, true);
                }
            }
            State::Key => {
                self.pending.push(byte);
                if byte == b':' {
                    self.begin_value(out);
                }
            }
            State::Skip(0) if matches!(byte, b'}' | b',') => self.end_skipped(byte, out),
            State::Skip(depth) => match byte {
                b'{' | b'[' => self.state = State::Skip(depth + 1),
                b'}' | b']' => self.state = State::Skip(depth - 1),
                _ => self.in_string = byte == b'"',
            },
            State::Cut(depth) => match byte {
                b'{' | b'[' => self.state = State::Cut(depth + 1),
                b'}' | b']' => self.state = if depth == 1 { State::Value } else { State::Cut(depth - 1) },
                _ => self.in_string = byte == b'"',
            },
        }
    }

    fn next_in_string(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
        match self.state {
            State::Skip(_) | State::Cut(_) => {}
            State::Key => {
                self.pending.push(byte);
                if self.in_string && self.key.len() <= MANAGED_FIELDS.len() {
                    self.key.push(byte);
                }
            }
            _ => out.push(byte),
        }
    }

    /// At the colon behind a key: begins to leave its value out, or writes what waited for this decision.
    fn begin_value(&mut self, out: &mut Vec<u8>) {
        if self.key == TIME && self.open.last() == Some(&Open::Manager) {
            self.state = State::Skip(0);
        } else {
            out.append(&mut self.pending);
            self.state = State::Value;
        }
    }

    /// At the comma or the brace behind a value that was left out. One comma goes with it: the one before it or, if it
    /// was the first member, the one behind it.
    fn end_skipped(&mut self, byte: u8, out: &mut Vec<u8>) {
        let had_comma = self.pending.first() == Some(&b',');
        self.pending.clear();
        if byte == b',' {
            if had_comma {
                self.pending.push(byte);
            }
            self.state = State::BeforeKey;
        } else {
            self.leave(byte, out);
        }
    }

    fn enter(&mut self, bracket: u8, out: &mut Vec<u8>) {
        out.push(bracket);
        if self.managers.is_some_and(|outside| self.open.len() - outside >= MAX_DEPTH) {
            out.push(if bracket == b'{' { b'}' } else { b']' });
            self.state = State::Cut(1);
            return;
        }
        let around = self.open.last().copied();
        let opened = match bracket {
            b'[' => Open::Array { managers: around == Some(Open::Metadata) && self.key == MANAGED_FIELDS },
            _ if around == Some(Open::Array { managers: true }) => Open::Manager,
            _ if self.key == METADATA => Open::Metadata,
            _ => Open::Object,
        };
        if opened == (Open::Array { managers: true }) {
            self.managers = Some(self.open.len());
        }
        self.open.push(opened);
        self.key.clear();
        self.state = if bracket == b'{' { State::BeforeKey } else { State::Value };
    }

    fn leave(&mut self, bracket: u8, out: &mut Vec<u8>) {
        out.push(bracket);
        self.open.pop();
        if self.managers == Some(self.open.len()) {
            self.managers = None;
        }
        self.key.clear();
        self.state = State::Value;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn filtered(text: &str) -> String {
        String::from_utf8(Filter::default().filter(text.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn only_the_times_of_field_managers_are_left_out() {
        for (text, left) in [
            (
                r#"{"metadata":{"managedFields":[{"time":"9999}","manager":"x"}],"name":"x"}}"#,
                r#"{"metadata":{"managedFields":[{"manager":"x"}],"name":"x"}}"#,
            ),
            (
                r#"{"items":[{"metadata":{"managedFields":[{"a":1,"time":null},{"a":2,"time":"t","b":3},{}]}}]}"#,
                r#"{"items":[{"metadata":{"managedFields":[{"a":1},{"a":2,"b":3},{}]}}]}"#,
            ),
            (
                r#"{"metadata": {"managedFields" : [ { "time" : [ "\"]" ] } ] } }"#,
                r#"{"metadata": {"managedFields" : [ {} ] } }"#,
            ),
        ] {
            assert_eq!(filtered(text), left);
        }
        for text in [
            r#"{"data":{"time":"x"},"metadata":{"annotations":{"managedFields":"x","time":"x"},"time":"x"}}"#,
            r#"{"managedFields":[{"time":"x"}],"spec":{"managedFields":[{"time":"x"}]}}"#,
            r#"{"metadata":{"managedFields":[{"fieldsV1":{"time":"x","f:a":{".":{},"time":{}}}}]}}"#,
            r#"{"metadata":{"note":"\"managedFields\":[{\"time\":1}]"}}"#,
            "",
            "null",
        ] {
            assert_eq!(filtered(text), text);
        }
    }

    #[test]
    fn what_is_nested_deeper_than_a_parser_follows_is_cut() {
        let nested = |levels: usize| format!("{}1{}", "{\"f:a\":".repeat(levels), "}".repeat(levels));
        let object = |fields: &str| {
            format!(r#"{{"metadata":{{"managedFields":[{{"fieldsV1":{fields},"manager":"m"}}],"name":"x"}}}}"#)
        };
        let left: Value = serde_json::from_str(&filtered(&object(&nested(5000)))).unwrap();
        assert_eq!(
            (&left["metadata"]["name"], &left["metadata"]["managedFields"][0]["manager"]),
            (&json!("x"), &json!("m"))
        );
        let usual = object(&nested(30));
        assert_eq!(filtered(&usual), usual);
        let elsewhere = format!(r#"{{"spec":{}}}"#, nested(500));
        assert_eq!(filtered(&elsewhere), elsewhere, "only field managers are cut");
    }

    #[test]
    fn each_event_of_a_watch_is_filtered() {
        let event = |name: &str| {
            format!(r#"{{"type":"ADDED","object":{{"metadata":{{"managedFields":[{{"time":1}}],"name":"{name}"}}}}}}"#)
        };
        let text = format!("{}\n{}\n", event("a"), event("b"));
        let events: Vec<_> = filtered(&text).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        assert_eq!(events.len(), 2);
        assert_eq!(events[1]["object"], json!({"metadata": {"managedFields": [{}], "name": "b"}}));
    }

    fn value() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("metadata".to_owned()),
            Just("managedFields".to_owned()),
            Just("time".to_owned()),
            ".{0,4}"
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 48, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn remove(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(remove),
            Value::Object(members) => {
                let managers = members.get_mut("metadata").and_then(|it| it.get_mut("managedFields")?.as_array_mut());
                for manager in managers.into_iter().flatten().filter_map(Value::as_object_mut) {
                    manager.remove("time");
                }
                members.values_mut().for_each(remove);
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_value_without_these_times(value in value(), cut in 1_usize..7, pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut filter = Filter::default();
            let left: Vec<u8> = text.as_bytes().chunks(cut).flat_map(|piece| filter.filter(piece)).collect();
            let mut expected = value;
            remove(&mut expected);
            prop_assert_eq!(serde_json::from_slice::<Value>(&left).unwrap(), expected);
        }
    }
}
