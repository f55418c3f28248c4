//! Converts the API's arguments to rules of the policy model, with the checks that a schema cannot make.

use std::error::Error;
use std::sync::Arc;

use mcp_fleet_policy::model::{self, ArrayRule, JsonRule, MapRule, Rule, Scalar, Shown};
use mcp_fleet_policy::rules;

use super::{
    Alternatives, Argument, Constant, Dash, DotFiles, Entries, Inner, InnerType, IntegerRange, Items, JsonBounds,
    NumberRange, PathRule, Plain, PlainRules, PlainType, Properties, Property, StringRule, Value, ValueType,
};

/// Why an argument could not be converted to a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ArgumentError {
    /// Path of the field, from the argument on, such as `filter.name.string.pattern`.
    pub field: String,
    /// What is wrong with the field, and how to correct it.
    pub problem: String,
}

impl ArgumentError {
    fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }

    /// Prefixes the field with the name of the value that contains it.
    fn inside(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl TryFrom<&Argument> for model::Argument {
    type Error = ArgumentError;

    fn try_from(argument: &Argument) -> Result<Self, ArgumentError> {
        property(argument)
    }
}

/// Converts a list of arguments. Rejects duplicate names, which admission rejects too.
pub fn arguments(list: &[Argument]) -> Result<Vec<model::Argument>, ArgumentError> {
    properties(list)
}

/// A value at any depth that can be converted to a rule.
trait ToRule {
    fn to_rule(&self) -> Result<Rule, ArgumentError>;
}

fn property<V: ToRule>(property: &Property<V>) -> Result<model::Argument, ArgumentError> {
    let rule = property.value.to_rule().map_err(|error| error.inside(&property.name))?;
    let Property { name, required, title, description, value: _ } = property;
    let shown = Shown::new(title.clone(), description.clone()).map(Arc::new);
    Ok(model::Argument { name: name.clone(), required: *required, rule, shown })
}

fn properties<V: ToRule>(list: &[Property<V>]) -> Result<Vec<model::Argument>, ArgumentError> {
    let duplicate =
        list.iter().enumerate().find(|(index, one)| list.iter().take(*index).any(|other| other.name == one.name));
    if let Some((_, duplicate)) = duplicate {
        return Err(ArgumentError::new(&duplicate.name, "is declared twice; remove one of them"));
    }
    list.iter().map(property).collect()
}

impl ToRule for Plain {
    fn to_rule(&self) -> Result<Rule, ArgumentError> {
        let Self { kind, nullable, r#enum, string, integer, number, r#const } = self;
        let rules = PlainRules {
            path: None,
            r#enum: r#enum.clone(),
            string: string.clone(),
            integer: integer.clone(),
            number: number.clone(),
            r#const: r#const.clone(),
        };
        plain(*kind, &rules).map(|rule| or_null(rule, *nullable))
    }
}

/// The members of a union for types that hold other values.
struct Nested<'a, V> {
    array: Option<&'a Items<V>>,
    object: Option<&'a Properties<V>>,
    map: Option<&'a Entries<V>>,
    one_of: Option<&'a Alternatives>,
    json: Option<&'a JsonBounds>,
}

impl<V> Nested<'_, V> {
    const fn set(&self) -> [(&'static str, bool); 5] {
        [
            ("array", self.array.is_some()),
            ("object", self.object.is_some()),
            ("map", self.map.is_some()),
            ("oneOf", self.one_of.is_some()),
            ("json", self.json.is_some()),
        ]
    }
}

impl<V: ToRule> ToRule for Value<V> {
    fn to_rule(&self) -> Result<Rule, ArgumentError> {
        let Self { kind, nullable, plain: rules, array, object, map, one_of, json } = self;
        let nested = Nested {
            array: array.as_ref(),
            object: object.as_ref(),
            map: map.as_ref(),
            one_of: one_of.as_ref(),
            json: json.as_ref(),
        };
        value(*kind, rules, &nested).map(|rule| or_null(rule, *nullable))
    }
}

impl<V: ToRule> ToRule for Inner<V> {
    fn to_rule(&self) -> Result<Rule, ArgumentError> {
        let Self { kind, nullable, plain: rules, array, object } = self;
        let nested = Nested { array: array.as_ref(), object: object.as_ref(), map: None, one_of: None, json: None };
        let kind = match kind {
            InnerType::Path => ValueType::Path,
            InnerType::Enum => ValueType::Enum,
            InnerType::String => ValueType::String,
            InnerType::Integer => ValueType::Integer,
            InnerType::Number => ValueType::Number,
            InnerType::Boolean => ValueType::Boolean,
            InnerType::Const => ValueType::Const,
            InnerType::Array => ValueType::Array,
            InnerType::Object => ValueType::Object,
        };
        value(kind, rules, &nested).map(|rule| or_null(rule, *nullable))
    }
}

fn or_null(rule: Rule, nullable: bool) -> Rule {
    if nullable { Rule::Nullable(Box::new(rule)) } else { rule }
}

fn value<V: ToRule>(kind: ValueType, rules: &PlainRules, nested: &Nested<'_, V>) -> Result<Rule, ArgumentError> {
    let only = |name: &str| refuse_other_members(rules, name, nested.set());
    let kind = match kind {
        ValueType::Array => {
            only("array")?;
            let Items { items, max_items } = required(nested.array, "array", "Array")?;
            let item = items.to_rule().map_err(|error| error.inside("array.items"))?;
            return Ok(Rule::Array(Box::new(ArrayRule { item, max_items: *max_items })));
        }
        ValueType::Object => {
            only("object")?;
            let Properties { properties: list } = required(nested.object, "object", "Object")?;
            return Ok(Rule::Object(properties(list)?));
        }
        ValueType::Map => {
            only("map")?;
            let Entries { names, values, max_properties } = required(nested.map, "map", "Map")?;
            let values = values.to_rule().map_err(|error| error.inside("map.values"))?;
            let rule = MapRule { names: string_rule(names), values, max_properties: *max_properties };
            return validated("map", Rule::Map(Box::new(rule)));
        }
        ValueType::OneOf => {
            only("oneOf")?;
            let Alternatives { rules } = required(nested.one_of, "oneOf", "OneOf")?;
            if rules.iter().any(|rule| rule.nullable) {
                let problem = "an alternative cannot be nullable; set nullable beside oneOf";
                return Err(ArgumentError::new("oneOf.rules", problem));
            }
            let options = rules.iter().map(ToRule::to_rule).collect::<Result<_, _>>();
            let options = options.map_err(|error: ArgumentError| error.inside("oneOf.rules"))?;
            return validated("oneOf", Rule::OneOf(options));
        }
        ValueType::Json => {
            only("json")?;
            let JsonBounds { max_bytes, max_depth } = required(nested.json, "json", "Json")?;
            return Ok(Rule::Json(JsonRule { max_bytes: *max_bytes, max_depth: *max_depth }));
        }
        ValueType::Path => {
            only("path")?;
            return validated("path", path(required(rules.path.as_ref(), "path", "Path")?));
        }
        ValueType::Enum => PlainType::Enum,
        ValueType::String => PlainType::String,
        ValueType::Integer => PlainType::Integer,
        ValueType::Number => PlainType::Number,
        ValueType::Boolean => PlainType::Boolean,
        ValueType::Const => PlainType::Const,
    };
    for (name, set) in nested.set() {
        if set {
            return Err(ArgumentError::new(name, "does not belong to this type; remove it or change type"));
        }
    }
    plain(kind, rules)
}

/// Returns the rule, validated by the code that will enforce it.
fn validated(name: &str, rule: Rule) -> Result<Rule, ArgumentError> {
    rules::validate(&rule).map_err(|error| ArgumentError::new(name, chain(&error)))?;
    Ok(rule)
}

/// Returns the rule of a type that holds no other values, validated by the code that will enforce it.
fn plain(kind: PlainType, rules: &PlainRules) -> Result<Rule, ArgumentError> {
    let (name, rule) = match kind {
        PlainType::Enum => {
            ("enum", Rule::Enum(only_member(rules, rules.r#enum.as_ref(), "enum", "Enum")?.values.clone()))
        }
        PlainType::String => ("string", string(only_member(rules, rules.string.as_ref(), "string", "String")?)),
        PlainType::Integer => {
            let IntegerRange { minimum, maximum } = *only_member(rules, rules.integer.as_ref(), "integer", "Integer")?;
            ("integer", Rule::Integer { minimum, maximum })
        }
        PlainType::Number => {
            let NumberRange { minimum, maximum } =
                only_member(rules, rules.number.as_ref(), "number", "Number")?.clone();
            ("number", Rule::Number { minimum, maximum })
        }
        PlainType::Boolean => {
            refuse_other_members(rules, "", [])?;
            ("type", Rule::Boolean)
        }
        PlainType::Const => ("const", constant(only_member(rules, rules.r#const.as_ref(), "const", "Const")?)?),
    };
    validated(name, rule)
}

/// Formats an error and its sources as one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        // `regex` prints the pattern over several lines; only the last line says what is wrong.
        let reason = source.to_string();
        text = format!("{text}: {}", reason.lines().last().unwrap_or_default().trim_start_matches("error: "));
        next = source.source();
    }
    text
}

/// Returns an error if a member other than `allowed` is set. `nested` lists the members that are not in `rules`.
fn refuse_other_members<const N: usize>(
    rules: &PlainRules,
    allowed: &str,
    nested: [(&str, bool); N],
) -> Result<(), ArgumentError> {
    let PlainRules { path, r#enum, string, integer, number, r#const } = rules;
    let plain = [
        ("path", path.is_some()),
        ("enum", r#enum.is_some()),
        ("string", string.is_some()),
        ("integer", integer.is_some()),
        ("number", number.is_some()),
        ("const", r#const.is_some()),
    ];
    match plain.into_iter().chain(nested).find(|(name, set)| *set && *name != allowed) {
        Some((name, _)) => Err(ArgumentError::new(name, "does not belong to this type; remove it or change type")),
        None => Ok(()),
    }
}

/// Returns the member that `type` names, or an error if it is absent or another one is set.
fn only_member<'a, T>(
    rules: &PlainRules,
    member: Option<&'a T>,
    name: &str,
    kind: &str,
) -> Result<&'a T, ArgumentError> {
    refuse_other_members(rules, name, [])?;
    required(member, name, kind)
}

fn required<'a, T>(member: Option<&'a T>, name: &str, kind: &str) -> Result<&'a T, ArgumentError> {
    member.ok_or_else(|| ArgumentError::new(name, format!("must be set when type is {kind}")))
}

fn path(rule: &PathRule) -> Rule {
    let PathRule { within, extensions, dotfiles } = rule;
    let dotfiles = *dotfiles == DotFiles::Allow;
    Rule::Path(model::PathRule { within: within.clone(), extensions: extensions.clone(), dotfiles })
}

fn string(rule: &StringRule) -> Rule {
    Rule::String(string_rule(rule))
}

fn string_rule(rule: &StringRule) -> model::StringRule {
    let StringRule { max_length, pattern, leading_dash } = rule;
    let leading_dash = *leading_dash == Dash::Allow;
    model::StringRule { max_length: *max_length, pattern: pattern.clone(), leading_dash }
}

fn constant(rule: &Constant) -> Result<Rule, ArgumentError> {
    Ok(Rule::Const(match rule {
        Constant { string: Some(text), integer: None, boolean: None } => Scalar::String(text.clone()),
        Constant { string: None, integer: Some(number), boolean: None } => Scalar::Integer(*number),
        Constant { string: None, integer: None, boolean: Some(truth) } => Scalar::Boolean(*truth),
        _ => return Err(ArgumentError::new("const", "must have exactly one of string, integer and boolean")),
    }))
}

#[cfg(test)]
mod tests;
