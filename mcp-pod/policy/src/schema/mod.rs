//! Writes the JSON Schema (2020-12) of the arguments that grants admit. Equal grants give equal bytes.
//!
//! The schema is a plain object (`type`, `properties`, `required`, `additionalProperties: false`), without the keywords that APIs
//! of model providers refuse, such as `allOf`. A single grant is written exactly, except that of several patterns of a string
//! all but one are written in words. The schema of several grants has the properties of all of them; each
//! property may match any grant that has it, and is required only if all grants require it. So the schema is never
//! narrower than what is admitted and shows nothing that no grant has. It can be wider, because a call has to satisfy
//! one whole grant; the denial then says what is wrong.

use std::sync::Arc;

use crate::json::{Members, Value, write};
use crate::rules::{Arguments, Check, Property, Text, escape};

/// Returns the schema of the arguments that any of these grants admits.
pub(crate) fn of(grants: &[&Arc<Arguments>]) -> Vec<u8> {
    let schema = match grants {
        [one] => object(one),
        several => union(several),
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

fn object<'a>(arguments: &Arguments) -> Members<'a> {
    let properties = arguments.0.iter().map(|Property { name, check, .. }| (name.clone().into(), schema(check)));
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
fn union<'a>(grants: &[&Arc<Arguments>]) -> Members<'a> {
    let mut properties: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for Property { name, check, .. } in grants.iter().flat_map(|arguments| &arguments.0) {
        let schema = schema(check);
        match properties.iter_mut().find(|(known, _)| known == name) {
            Some((_, schemas)) if schemas.contains(&schema) => {}
            Some((_, schemas)) => schemas.push(schema),
            None => properties.push((name.clone(), vec![schema])),
        }
    }
    let required_by_all =
        |name: &str| grants.iter().all(|grant| grant.get(name).is_some_and(|property| property.required));
    let required =
        properties.iter().filter(|(name, _)| required_by_all(name)).map(|(name, _)| string(&**name)).collect();
    let properties = properties.into_iter().map(|(name, mut schemas)| {
        let schema = match schemas.pop() {
            Some(one) if schemas.is_empty() => one,
            last => {
                schemas.extend(last);
                Value::Object(vec![field("anyOf", Value::Array(schemas))])
            }
        };
        (name.into(), schema)
    });
    assemble(properties.collect(), required)
}

fn schema<'a>(check: &Check) -> Value<'a> {
    Value::Object(match check {
        Check::Text(text) => self::text(text),
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
            members.extend(item.as_ref().map(|item| field("items", schema(item))));
            let max_items = i64::try_from(*max_items).unwrap_or(i64::MAX);
            members.push(field("maxItems", Value::Integer(max_items)));
            members
        }
        Check::Object(arguments) => object(arguments),
    })
}

fn text<'a>(text: &Text) -> Members<'a> {
    let mut members = vec![field("type", string("string"))];
    if let Some(values) = &text.one_of {
        members.push(field("enum", Value::Array(values.iter().map(|value| string(&**value)).collect())));
        return members;
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
    if !words.is_empty() {
        members.push(field("description", string(words.join(". "))));
    }
    members
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
