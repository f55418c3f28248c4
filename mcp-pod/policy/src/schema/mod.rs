//! Writes the JSON Schema (2020-12) of the arguments that grants admit. Equal grants give equal bytes.
//!
//! The schema is a plain object (`type`, `properties`, `required`, `additionalProperties: false`), without the keywords that APIs
//! of model providers refuse, such as `allOf`. A single grant is written exactly, except that of several patterns of a string
//! all but one are written in words. The schema of several grants has the properties of all of them; each
//! property may match any grant that has it, and is required only if all grants require it. So the schema is never
//! narrower than what is admitted and shows nothing that no grant has. It can be wider, because a call has to satisfy
//! one whole grant; the denial then says what is wrong.
//!
//! Titles and descriptions are those of the catalogue or the scope; what neither has is the server's own ([`Annotations`]).
//! Its defaults and examples are shown only if the rule admits them, and only beside its own description. Of the
//! alternatives that several grants give, only the first has the server's texts about nested values.

mod annotations;

use std::sync::Arc;

pub(crate) use annotations::{Annotations, MAX_TITLE};

use crate::json::{Members, Value, write};
use crate::model::{JsonRule, Shown};
use crate::rules::{Arguments, Check, Property, Text, escape};
use crate::text::neutralise;

/// Returns the schema of the arguments that any of these grants admits, with what the server says about them.
pub(crate) fn of(grants: &[&Arc<Arguments>], server: Option<&Annotations>) -> Vec<u8> {
    let schema = match grants {
        [one] => object(one, server),
        several => union(several, server),
    };
    let mut bytes = Vec::new();
    write(&Value::Object(schema), &mut bytes);
    bytes
}

fn string<'a>(text: impl Into<String>) -> Value<'a> {
    Value::String(text.into().into())
}

fn field<'a>(name: &'static str, value: Value<'a>) -> (std::borrow::Cow<'a, str>, Value<'a>) {
    (name.into(), value)
}

/// What is said about one value, besides its rule.
#[derive(Clone, Copy, Default)]
struct Notes<'n> {
    /// By the catalogue or the scope.
    shown: Option<&'n Shown>,
    /// By the server.
    server: Option<&'n Annotations>,
}

impl<'n> Notes<'n> {
    fn of(property: &'n Property, server: Option<&'n Annotations>) -> Self {
        let server = server.and_then(|server| server.property(&property.name));
        Self { shown: property.shown.as_deref(), server }
    }

    fn title(self) -> Option<&'n str> {
        self.shown.and_then(|shown| shown.title.as_deref()).or_else(|| self.server?.title.as_deref())
    }

    fn description(self) -> Option<&'n str> {
        self.shown.and_then(|shown| shown.description.as_deref()).or_else(|| self.server?.description.as_deref())
    }

    /// Returns whose default and examples are shown: the server's, unless the catalogue or the scope describes the value.
    /// An example is a text that the server chose, and would be read as part of their description.
    fn values(self) -> Option<&'n Annotations> {
        let described = self.shown.is_some_and(|shown| shown.description.is_some());
        self.server.filter(|_| !described)
    }
}

fn object<'a>(arguments: &Arguments, server: Option<&Annotations>) -> Members<'a> {
    let properties = arguments.0.iter().map(|property| {
        let schema = schema(&property.check, Notes::of(property, server));
        (property.name.clone().into(), Value::Object(schema))
    });
    let required = arguments.0.iter().filter(|property| property.required).map(|property| string(&*property.name));
    assemble(properties.collect(), required.collect())
}

fn assemble<'a>(properties: Members<'a>, required: Vec<Value<'a>>) -> Members<'a> {
    let mut members = vec![field("type", string("object")), field("properties", Value::Object(properties))];
    if !required.is_empty() {
        members.push(field("required", Value::Array(required)));
    }
    members.push(field("additionalProperties", Value::Bool(false)));
    members
}

/// Builds the schema of several grants. Properties are in the order of their first occurrence; each grant has them in
/// the order of the catalogue.
fn union<'a>(grants: &[&Arc<Arguments>], server: Option<&Annotations>) -> Members<'a> {
    let mut properties: Vec<(&Property, Vec<(&Check, Members<'a>)>)> = Vec::new();
    for property in grants.iter().flat_map(|arguments| &arguments.0) {
        // Without the server's texts, which would be repeated for every grant.
        let schema = alternative(&property.check, None);
        match properties.iter_mut().find(|(known, _)| known.name == property.name) {
            Some((_, schemas)) if schemas.iter().any(|(_, known)| *known == schema) => {}
            Some((_, schemas)) => schemas.push((&property.check, schema)),
            None => properties.push((property, vec![(&property.check, schema)])),
        }
    }
    let required_by_all =
        |name: &str| grants.iter().all(|grant| grant.get(name).is_some_and(|property| property.required));
    let required =
        properties.iter().filter(|(one, _)| required_by_all(&one.name)).map(|(one, _)| string(&*one.name)).collect();
    let properties = properties.into_iter().map(|(property, schemas)| {
        let notes = Notes::of(property, server);
        let schema = match &schemas[..] {
            [] => Members::new(),
            [(check, _)] => schema(check, notes),
            [(first, _), ..] => {
                let checks: Vec<&Check> = schemas.iter().map(|(check, _)| *check).collect();
                let first = alternative(first, notes.server);
                let others = schemas.into_iter().skip(1).map(|(_, schema)| schema);
                let schemas = std::iter::once(first).chain(others).map(Value::Object).collect();
                annotated(vec![field("anyOf", Value::Array(schemas))], &[], &checks, notes)
            }
        };
        (property.name.clone().into(), Value::Object(schema))
    });
    assemble(properties.collect(), required)
}

/// Returns the schema of a value, with what the server says about the values in it, but not about itself.
fn alternative<'a>(check: &Check, server: Option<&Annotations>) -> Members<'a> {
    let (members, words) = keywords(check, server);
    annotated(members, &words, &[], Notes::default())
}

/// Returns the schema of a value, with what is said about it.
fn schema<'a>(check: &Check, notes: Notes<'_>) -> Members<'a> {
    let (members, words) = keywords(check, notes.server);
    annotated(members, &words, &[check], notes)
}

/// Adds what is said about a value: first the texts, then those conditions of the rule that are written in words.
fn annotated<'a>(mut members: Members<'a>, words: &[String], checks: &[&Check], notes: Notes<'_>) -> Members<'a> {
    let admitted = |value: &&Value<'static>| checks.iter().all(|check| check.admit(value, &mut Vec::new()).is_ok());
    members.extend(notes.title().map(|title| field("title", string(neutralise(title)))));
    let mut lines: Vec<String> = notes.description().map(|text| neutralise(text).into_owned()).into_iter().collect();
    if !words.is_empty() {
        lines.push(words.join(". "));
    }
    // In words, because not every API of a model provider takes the keyword `examples`.
    let examples = notes.values().map_or(&[][..], |server| &server.examples).iter().filter(admitted);
    let examples: Vec<String> = examples.map(|value| format!("`{}`", text_of(value))).collect();
    if !examples.is_empty() {
        lines.push(format!("Examples: {}", examples.join(", ")));
    }
    if !lines.is_empty() {
        members.push(field("description", string(lines.join("\n"))));
    }
    let default = notes.values().and_then(|server| server.default.as_ref()).filter(admitted);
    members.extend(default.map(|value| field("default", value.clone())));
    members
}

fn text_of(value: &Value<'_>) -> String {
    let mut text = Vec::new();
    write(value, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Returns the keywords for a rule, and the conditions that are written in words.
fn keywords<'a>(check: &Check, server: Option<&Annotations>) -> (Members<'a>, Vec<String>) {
    let members = match check {
        Check::Text(text) => return self::text(text),
        Check::Integer { minimum, maximum } => vec![
            field("type", string("integer")),
            field("minimum", Value::Integer(*minimum)),
            field("maximum", Value::Integer(*maximum)),
        ],
        Check::Number { minimum, maximum } => vec![
            field("type", string("number")),
            field("minimum", Value::Number(*minimum)),
            field("maximum", Value::Number(*maximum)),
        ],
        Check::Boolean(wanted) => {
            let mut members = vec![field("type", string("boolean"))];
            members.extend(wanted.map(|wanted| field("const", Value::Bool(wanted))));
            members
        }
        Check::Array { item, max_items } => {
            let mut members = vec![field("type", string("array"))];
            let notes = Notes { server: server.and_then(Annotations::items), shown: None };
            members.extend(item.as_ref().map(|item| field("items", Value::Object(schema(item, notes)))));
            let max_items = i64::try_from(*max_items).unwrap_or(i64::MAX);
            members.push(field("maxItems", Value::Integer(max_items)));
            members
        }
        Check::Object { properties, max_properties } => {
            let mut members = object(properties, server);
            let max_properties = max_properties.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
            members.extend(max_properties.map(|most| field("maxProperties", Value::Integer(most))));
            members
        }
        Check::Map { names, values, max_properties } => {
            let notes = Notes { server: server.and_then(Annotations::items), shown: None };
            let values = values.as_ref().map_or(Value::Bool(false), |check| Value::Object(schema(check, notes)));
            let max_properties = i64::try_from(*max_properties).unwrap_or(i64::MAX);
            let members = vec![
                field("type", string("object")),
                field("additionalProperties", values),
                field("maxProperties", Value::Integer(max_properties)),
            ];
            return (members, vec![names_in_words(names)]);
        }
        Check::Null => vec![field("type", string("null"))],
        Check::Json(JsonRule { max_bytes, max_depth }) => {
            let words =
                format!("Any JSON of at most {max_bytes} bytes, with at most {max_depth} levels of arrays and objects");
            return (vec![], vec![words]);
        }
        Check::Any(checks) => {
            let alternatives = checks.iter().map(|check| Value::Object(alternative(check, server)));
            vec![field("anyOf", Value::Array(alternatives.collect()))]
        }
        Check::All(checks) => {
            let mut all = checks.iter().map(|check| keywords(check, server));
            let (members, mut words) = all.next().unwrap_or_default();
            words.extend(all.flat_map(|(_, words)| words));
            return (members, words);
        }
    };
    (members, vec![])
}

/// Describes the names of the properties of a map. Not every API of a model provider takes `propertyNames`.
fn names_in_words(names: &Text) -> String {
    let mut words = vec![names.max_length.map_or(String::new(), |max| format!("have at most {max} characters"))];
    words.extend(names.patterns.iter().map(|pattern| format!("match `{}`", pattern.anchored())));
    words.extend(names.no_option.then(|| "do not begin with `-`".to_owned()));
    words.retain(|word| !word.is_empty());
    format!("Names of properties {}", words.join(", "))
}

fn text<'a>(text: &Text) -> (Members<'a>, Vec<String>) {
    let mut members = vec![field("type", string("string"))];
    if let Some(values) = &text.one_of {
        members.push(field("enum", Value::Array(values.iter().map(|value| string(&**value)).collect())));
        return (members, vec![]);
    }
    members.extend(text.max_length.map(|length| field("maxLength", Value::Integer(length.into()))));
    // The pattern of the narrowest rule is the first one.
    let mut patterns: Vec<String> = text.patterns.iter().map(crate::rules::Pattern::anchored).collect();
    let mut words = Vec::new();
    if let Some(path) = &text.path {
        patterns.insert(0, below(&path.within));
        words.push(path.in_words());
    }
    if text.no_option {
        if patterns.is_empty() {
            // Written without look-ahead, which not every validator supports.
            patterns.push("^(?:$|[^-])".to_owned());
        } else {
            words.push("Must not begin with `-`".to_owned());
        }
    }
    let mut patterns = patterns.into_iter();
    members.extend(patterns.next().map(|shown| field("pattern", string(shown))));
    words.extend(patterns.map(|pattern| format!("Must also match `{pattern}`")));
    (members, words)
}

/// Returns a pattern that matches every path at or below the roots.
fn below(roots: &[String]) -> String {
    let roots: Vec<String> = roots
        .iter()
        .map(|root| if root == "/" { "/[\\s\\S]*".to_owned() } else { format!("{}(?:/[\\s\\S]*)?", escape(root)) })
        .collect();
    format!("^(?:{})$", roots.join("|"))
}

#[cfg(test)]
mod tests;
