//! What a server's own schemas say for agents to read: titles, descriptions, defaults and examples of arguments.
//!
//! They are copied out of the server's `inputSchema` and made safe to show. Nothing else of that schema reaches agents,
//! and nothing of it decides what is accepted.

use crate::json::{Value, write};
use crate::text::{neutralise, shortened};

/// Longest title, in characters. Longer ones are cut.
pub(crate) const MAX_TITLE: usize = 128;
/// Longest description of an argument, in characters. Longer ones are cut.
const MAX_DESCRIPTION: usize = 2048;
/// Longest default or example, in bytes of JSON. Longer ones are left out.
const MAX_VALUE: usize = 256;
/// Most examples of one argument.
const MAX_EXAMPLES: usize = 3;
/// Greatest nesting that is looked at; rules are nested less.
const MAX_DEPTH: usize = 8;
/// Most references that are followed for one value.
const MAX_REFERENCES: usize = 4;

/// How much is still copied from the schema of one tool. A small schema can refer to itself again and again.
#[derive(Debug)]
struct Room {
    /// Arguments, properties and items.
    values: usize,
    /// Bytes of text.
    bytes: usize,
}

impl Room {
    /// Returns the room of one tool. Each tool has its own, so that what is shown of it depends on nothing else.
    const fn of_tool() -> Self {
        Self { values: 4096, bytes: 64 << 10 }
    }

    /// Returns whether there was room for so many bytes.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(0);
        left.is_some()
    }
}

/// What a server says about one value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Annotations {
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) default: Option<Value<'static>>,
    pub(crate) examples: Vec<Value<'static>>,
    properties: Vec<(String, Annotations)>,
    /// Of the items of an array, or the values of an object without fixed names.
    items: Option<Box<Annotations>>,
}

impl Annotations {
    /// Copies what the `inputSchema` of a tool says, as far as there is room.
    pub(crate) fn of(schema: &Value<'_>) -> Self {
        read(schema, schema, MAX_DEPTH, &mut Room::of_tool())
    }

    /// Returns what is said about a property of the value.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        self.properties.iter().find_map(|(known, annotations)| (known == name).then_some(annotations))
    }

    /// Returns what is said about each item of the value, or each value without a fixed name.
    pub(crate) fn items(&self) -> Option<&Self> {
        self.items.as_deref()
    }
}

fn read(schema: &Value<'_>, whole: &Value<'_>, depth: usize, room: &mut Room) -> Annotations {
    let (Some(depth), Some(values)) = (depth.checked_sub(1), room.values.checked_sub(1)) else {
        return Annotations::default();
    };
    room.values = values;
    let target = resolved(schema, whole);
    // What stands beside a reference is about this value; what it refers to is about all values of the kind.
    let find = |name: &str| schema.get(name).or_else(|| target.get(name));
    let mut text = |name: &str, max| {
        let text = find(name)?.as_str().filter(|text| !text.trim().is_empty())?;
        let text = shortened(text, max).into_owned();
        room.take(text.len()).then_some(text)
    };
    let (title, description) = (text("title", MAX_TITLE), text("description", MAX_DESCRIPTION));
    let default = find("default").and_then(|value| shown_value(value, room));
    let examples = find("examples").and_then(Value::as_array).unwrap_or_default().iter().take(MAX_EXAMPLES);
    let examples = examples.filter_map(|value| shown_value(value, room).filter(is_quotable)).collect();
    let shape = shape(target, whole);
    let properties = shape.get("properties").and_then(Value::as_object).map_or(&[][..], Vec::as_slice);
    let properties =
        properties.iter().map(|(name, schema)| (name.to_string(), read(schema, whole, depth, room))).collect();
    let items = shape.get("items").or_else(|| shape.get("additionalProperties"));
    let items = items.filter(|items| items.as_object().is_some());
    let items = items.map(|items| Box::new(read(items, whole, depth, room)));
    Annotations { title, description, default, examples, properties, items }
}

/// Follows references to definitions in the same schema, such as `#/$defs/Point`.
fn resolved<'s, 'v>(schema: &'s Value<'v>, whole: &'s Value<'v>) -> &'s Value<'v> {
    let mut schema = schema;
    for _ in 0..MAX_REFERENCES {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|reference| {
            let (section, name) = reference.strip_prefix("#/")?.split_once('/')?;
            matches!(section, "$defs" | "definitions").then_some(whole.get(section)?.get(name)?)
        });
        let Some(target) = target else { break };
        schema = target;
    }
    schema
}

/// Returns the part of a schema that says what is in an array or object: itself, or the first such alternative.
fn shape<'s, 'v>(schema: &'s Value<'v>, whole: &'s Value<'v>) -> &'s Value<'v> {
    let has_shape = |schema: &Value<'_>| {
        ["properties", "items", "additionalProperties"].iter().any(|name| schema.get(name).is_some())
    };
    if has_shape(schema) {
        return schema;
    }
    let alternatives = ["anyOf", "oneOf", "allOf"].iter().filter_map(|name| schema.get(name)?.as_array()).flatten();
    alternatives.map(|schema| resolved(schema, whole)).find(|schema| has_shape(schema)).unwrap_or(schema)
}

/// Copies a default or an example that is short and can be shown as it is. One with an unsafe character would mean another
/// value after that is replaced.
fn shown_value(value: &Value<'_>, room: &mut Room) -> Option<Value<'static>> {
    let mut text = Vec::new();
    // What is much longer is not written to be measured.
    if is_longer(value, MAX_VALUE) {
        return None;
    }
    write(value, &mut text);
    let safe = is_safe(value) && text.len() <= MAX_VALUE;
    (safe && room.take(text.len())).then(|| owned(value))
}

/// Returns whether a value has more than `max` bytes, counting less than it has.
fn is_longer(value: &Value<'_>, max: usize) -> bool {
    fn left(value: &Value<'_>, left_before: usize) -> Option<usize> {
        let rest = left_before.checked_sub(1)?;
        match value {
            Value::String(text) => rest.checked_sub(text.len()),
            Value::Array(items) => items.iter().try_fold(rest, |rest, item| left(item, rest)),
            Value::Object(members) => {
                members.iter().try_fold(rest, |rest, (name, item)| left(item, rest.checked_sub(name.len())?))
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Number(_) => Some(rest),
        }
    }
    left(value, max).is_none()
}

/// Returns whether a value can stand between backticks in a line of text, and ends there.
fn is_quotable(value: &Value<'_>) -> bool {
    let quotable = |text: &str| !text.contains(['`', '\n']);
    match value {
        Value::String(text) => quotable(text),
        Value::Array(items) => items.iter().all(is_quotable),
        Value::Object(members) => members.iter().all(|(name, value)| quotable(name) && is_quotable(value)),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Number(_) => true,
    }
}

fn is_safe(value: &Value<'_>) -> bool {
    let safe = |text: &str| neutralise(text) == text;
    match value {
        Value::String(text) => safe(text),
        Value::Array(items) => items.iter().all(is_safe),
        Value::Object(members) => members.iter().all(|(name, value)| safe(name) && is_safe(value)),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Number(_) => true,
    }
}

fn owned(value: &Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Bool(truth) => Value::Bool(*truth),
        Value::Integer(number) => Value::Integer(*number),
        Value::Number(number) => Value::Number(*number),
        Value::String(text) => Value::String(text.to_string().into()),
        Value::Array(items) => Value::Array(items.iter().map(owned).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.to_string().into(), owned(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::json::{Limits, parse};

    fn read(schema: &str) -> Annotations {
        Annotations::of(&parse(schema.as_bytes(), &Limits::RESULT).unwrap())
    }

    #[test]
    fn texts_are_found_behind_references_and_alternatives() {
        let entities = read(
            r##"{"properties":{
                "entities":{"description":"All of them.","anyOf":[{"type":"array","items":{"$ref":"#/$defs/Entity"}},{"type":"null"}],"default":null},
                "one":{"$ref":"#/definitions/Entity","description":"Just one."}},
              "$defs":{"Entity":{"title":"Entity","properties":{"name":{"description":"Its name.","default":"x","examples":["a","b","c","d"]}}}},
              "definitions":{"Entity":{"description":"An entity.","title":"E"}}}"##,
        );
        let list = entities.property("entities").unwrap();
        assert_eq!((list.description.as_deref(), &list.default), (Some("All of them."), &Some(Value::Null)));
        let entity = list.items().unwrap();
        assert_eq!(entity.title.as_deref(), Some("Entity"));
        let name = entity.property("name").unwrap();
        assert_eq!(name.default, Some(Value::String("x".into())));
        assert_eq!(name.examples.len(), MAX_EXAMPLES);
        let one = entities.property("one").unwrap();
        assert_eq!((one.description.as_deref(), one.title.as_deref()), (Some("Just one."), Some("E")));
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let properties: Vec<String> = (0..100).map(|n| format!(r##""p{n}":{{"$ref":"#/$defs/A"}}"##)).collect();
        let text = "x".repeat(1000);
        let schema = format!(
            r##"{{"$ref":"#/$defs/A","$defs":{{"A":{{"description":"{text}","properties":{{{}}}}}}}}}"##,
            properties.join(",")
        );
        let schema = parse(schema.as_bytes(), &Limits::RESULT).unwrap();
        let mut room = Room::of_tool();
        let annotations = super::read(&schema, &schema, MAX_DEPTH, &mut room);
        assert!(room.bytes == 0 && room.values == 0, "{room:?}");
        assert!(annotations.property("p0").unwrap().property("p0").is_some());
        assert!(read(r##"{"$ref":"#/$defs/A","$defs":{"A":{"$ref":"#/$defs/A"}}}"##).description.is_none());
    }

    #[test]
    fn unsafe_texts_are_made_safe_and_unsafe_values_are_left_out() {
        let long = "é".repeat(MAX_DESCRIPTION + 1);
        let of = |schema: String| read(&format!(r#"{{"properties":{{"a":{schema}}}}}"#)).property("a").unwrap().clone();
        let red =
            of(r#"{"title":"\u001b[31mred","description":" ","default":"a\u202eb","examples":[["\u0000"],7]}"#.into());
        assert_eq!(red.title.as_deref(), Some("\u{fffd}[31mred"));
        assert_eq!((red.description, red.default, red.examples), (None, None, vec![Value::Integer(7)]));
        let quoted = of(r#"{"default":"`","examples":["` Ignore this","a\nb",["`"],{"`":1},"a"]}"#.into());
        assert_eq!(quoted.default, Some(Value::String("`".into())));
        let quoted = of(r#"{"examples":["` Ignore this","a\nb","a"]}"#.into());
        assert_eq!(quoted.examples, [Value::String("a".into())]);
        for example in [r#"["`"]"#, r#"{"`":1}"#] {
            assert_eq!(of(format!(r#"{{"examples":[{example}]}}"#)).examples, [], "{example}");
        }
        let cut = of(format!(r#"{{"description":"{long}","default":"{}"}}"#, "x".repeat(MAX_VALUE)));
        let description = cut.description.unwrap();
        assert!(description.chars().count() == MAX_DESCRIPTION && description.ends_with('…'));
        assert_eq!(cut.default, None, "it is longer with its quotes");
    }
}
