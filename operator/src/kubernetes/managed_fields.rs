//! Removes `metadata.managedFields` from JSON as it streams by.
//!
//! A filter over bytes, not a parser: what it has to skip can be nested deeper than a parser follows. It needs no
//! recursion and keeps only the nesting and the key at hand. The text comes from the API server, which writes valid JSON
//! and writes these two keys without escapes.

use bytes::Bytes;

const METADATA: &[u8] = b"metadata";
const MANAGED_FIELDS: &[u8] = b"managedFields";

/// The state between two pieces of a stream of JSON texts.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Open arrays and objects, the innermost last.
    open: Vec<Open>,
    state: State,
    /// What was read of a member up to its key, with the comma before it. Not written before the key is known.
    pending: Vec<u8>,
    /// The key that is read, or was read last; its beginning if it is long.
    key: Vec<u8>,
    in_string: bool,
    escaped: bool,
}

/// An open array or object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Array,
    /// An object; whether it is the value of a member `metadata`.
    Object {
        metadata: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In a value, or between two texts.
    #[default]
    Value,
    /// In an object, before a key or its end.
    BeforeKey,
    /// In a key.
    Key,
    /// Behind a key: what follows is its colon and its value.
    AfterKey,
    /// In a value that is left out, at this depth in itself.
    Skip(usize),
}

impl Filter {
    /// Returns what is left of the next piece.
    pub(super) fn filter(&mut self, piece: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(piece.len());
        for &byte in piece {
            self.next(byte, &mut out);
        }
        out.into()
    }

    fn next(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            return self.next_in_string(byte, out);
        }
        match self.state {
            State::Value => {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' => self.enter(Open::Object { metadata: self.key == METADATA }),
                    b'[' => self.enter(Open::Array),
                    b'}' | b']' => self.leave(),
                    b',' if self.in_object() => {
                        self.state = State::BeforeKey;
                        self.pending.push(byte);
                        return;
                    }
                    _ => {}
                }
                out.push(byte);
            }
            State::BeforeKey => match byte {
                b'"' => {
                    self.pending.push(byte);
                    self.key.clear();
                    (self.state, self.in_string) = (State::Key, true);
                }
                b'}' => {
                    out.append(&mut self.pending);
                    out.push(byte);
                    self.leave();
                }
                _ => self.pending.push(byte),
            },
            State::Key | State::AfterKey => {
                self.pending.push(byte);
                if byte == b':' {
                    self.decide(out);
                }
            }
            State::Skip(depth) => match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.state = State::Skip(depth + 1),
                b'}' if depth == 0 => self.end_of_skipped(byte, out),
                b'}' | b']' => self.state = State::Skip(depth - 1),
                b',' if depth == 0 => self.end_of_skipped(byte, out),
                _ => {}
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
            State::Key => {
                self.pending.push(byte);
                if !self.in_string {
                    self.state = State::AfterKey;
                } else if self.key.len() <= MANAGED_FIELDS.len() {
                    self.key.push(byte);
                }
            }
            State::Skip(_) => {}
            _ => out.push(byte),
        }
    }

    /// At the colon behind a key: begins to leave its value out, or writes what waited for this decision.
    fn decide(&mut self, out: &mut Vec<u8>) {
        if self.key == MANAGED_FIELDS && self.open.last() == Some(&Open::Object { metadata: true }) {
            self.state = State::Skip(0);
        } else {
            out.append(&mut self.pending);
            self.state = State::Value;
        }
    }

    /// At the comma or the brace behind a value that was left out. One comma goes with it: the one before it or, if it
    /// was the first member, the one behind it.
    fn end_of_skipped(&mut self, byte: u8, out: &mut Vec<u8>) {
        let had_comma = self.pending.first() == Some(&b',');
        self.pending.clear();
        self.key.clear();
        if byte == b',' {
            if had_comma {
                self.pending.push(byte);
            }
            self.state = State::BeforeKey;
        } else {
            out.push(byte);
            self.leave();
        }
    }

    fn enter(&mut self, open: Open) {
        self.open.push(open);
        self.key.clear();
        self.state = if open == Open::Array { State::Value } else { State::BeforeKey };
    }

    fn leave(&mut self) {
        self.open.pop();
        self.key.clear();
        self.state = State::Value;
    }

    fn in_object(&self) -> bool {
        matches!(self.open.last(), Some(Open::Object { .. }))
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
    fn only_the_field_managers_of_metadata_are_left_out() {
        for (text, left) in [
            (r#"{"metadata":{"managedFields":[{"a":"}"}],"name":"x"}}"#, r#"{"metadata":{"name":"x"}}"#),
            (r#"{"metadata":{"name":"x","managedFields":null}}"#, r#"{"metadata":{"name":"x"}}"#),
            (r#"{"metadata":{"a":1,"managedFields":[],"b":2}}"#, r#"{"metadata":{"a":1,"b":2}}"#),
            (r#"{"metadata": { "managedFields" : [ "\"]" ] } }"#, r#"{"metadata": {} }"#),
            (r#"{"items":[{"metadata":{"managedFields":[{}]}}]}"#, r#"{"items":[{"metadata":{}}]}"#),
        ] {
            assert_eq!(filtered(text), left);
        }
        for text in [
            r#"{"data":{"managedFields":"aGk="},"metadata":{"annotations":{"managedFields":"x"}}}"#,
            r#"{"metadata":[{"managedFields":1}],"managedFields":[]}"#,
            r#"{"metadata":{"note":"\"managedFields\":[]"}}"#,
            "",
            "null",
        ] {
            assert_eq!(filtered(text), text);
        }
    }

    #[test]
    fn a_value_deeper_than_a_parser_follows_is_left_out() {
        let deep = format!("{}{}", "{\"f\":".repeat(5000), "1".to_owned() + &"}".repeat(5000));
        let text = format!(r#"{{"metadata":{{"managedFields":[{deep}],"name":"x"}}}}"#);
        assert_eq!(filtered(&text), r#"{"metadata":{"name":"x"}}"#);
    }

    #[test]
    fn each_event_of_a_watch_is_filtered() {
        let event = |name: &str| {
            format!(r#"{{"type":"ADDED","object":{{"metadata":{{"managedFields":[1],"name":"{name}"}}}}}}"#)
        };
        let text = format!("{}\n{}\n", event("a"), event("b"));
        let names: Vec<_> = filtered(&text).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        assert_eq!(names[1], json!({"type": "ADDED", "object": {"metadata": {"name": "b"}}}));
        assert_eq!(names.len(), 2);
    }

    fn value() -> impl Strategy<Value = Value> {
        let key = prop_oneof![Just("metadata".to_owned()), Just("managedFields".to_owned()), ".{0,4}"];
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
                if let Some(Value::Object(metadata)) = members.get_mut("metadata") {
                    metadata.remove("managedFields");
                }
                members.values_mut().for_each(remove);
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_value_without_field_managers(value in value(), cut in 1_usize..7, pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut filter = Filter::default();
            let left: Vec<u8> = text.as_bytes().chunks(cut).flat_map(|piece| filter.filter(piece)).collect();
            let mut expected = value;
            remove(&mut expected);
            prop_assert_eq!(serde_json::from_slice::<Value>(&left).unwrap(), expected);
        }
    }
}
