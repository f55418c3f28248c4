//! Converts the API's arguments to rules of the policy model, with the checks that a schema cannot make.

use std::error::Error;
use std::sync::Arc;

use mcp_fleet_policy::model::{self, ArrayRule, Rule, Scalar, Shown};
use mcp_fleet_policy::rules;

use super::{
    Argument, Constant, Dash, DotFiles, IntegerRange, Items, NumberRange, PathRule, Plain, PlainRules, PlainType,
    Properties, Property, StringRule, Value, ValueType,
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
        plain(self.kind, &self.plain)
    }
}

impl<V: ToRule> ToRule for Value<V> {
    fn to_rule(&self) -> Result<Rule, ArgumentError> {
        let Self { kind, plain: rules, array, object } = self;
        let kind = match kind {
            ValueType::Array => {
                refuse_other_members(rules, "array", [("object", object.is_some())])?;
                let Items { items, max_items } = required(array.as_ref(), "array", "Array")?;
                let item = items.to_rule().map_err(|error| error.inside("array.items"))?;
                return Ok(Rule::Array(Box::new(ArrayRule { item, max_items: *max_items })));
            }
            ValueType::Object => {
                refuse_other_members(rules, "object", [("array", array.is_some())])?;
                let Properties { properties: list } = required(object.as_ref(), "object", "Object")?;
                return Ok(Rule::Object(properties(list)?));
            }
            ValueType::Path => PlainType::Path,
            ValueType::Enum => PlainType::Enum,
            ValueType::String => PlainType::String,
            ValueType::Integer => PlainType::Integer,
            ValueType::Number => PlainType::Number,
            ValueType::Boolean => PlainType::Boolean,
            ValueType::Const => PlainType::Const,
        };
        for (name, set) in [("array", array.is_some()), ("object", object.is_some())] {
            if set {
                return Err(ArgumentError::new(name, "does not belong to this type; remove it or change type"));
            }
        }
        plain(kind, rules)
    }
}

/// Returns the rule of a type that holds no other values, validated by the code that will enforce it.
fn plain(kind: PlainType, rules: &PlainRules) -> Result<Rule, ArgumentError> {
    let (name, rule) = match kind {
        PlainType::Path => ("path", path(only_member(rules, rules.path.as_ref(), "path", "Path")?)),
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
    rules::validate(&rule).map_err(|error| ArgumentError::new(name, chain(&error)))?;
    Ok(rule)
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
    let StringRule { max_length, pattern, leading_dash } = rule;
    let leading_dash = *leading_dash == Dash::Allow;
    Rule::String(model::StringRule { max_length: *max_length, pattern: pattern.clone(), leading_dash })
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
