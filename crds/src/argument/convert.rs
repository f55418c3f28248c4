//! From the API's arguments to the rules of the policy model, with every check that a schema cannot make.

use std::error::Error;

use mcp_fleet_policy::model::{self, ItemRule, Rule, Scalar};
use mcp_fleet_policy::rules;

use super::{
    Argument, Constant, Dash, DotFiles, IntegerRange, Items, NumberRange, PathRule, Plain, PlainRules, PlainType,
    Properties, Property, StringRule, Value, ValueType,
};

/// Why an argument is not a rule. The field is a path from the argument, such as `filter.name.string.pattern`; the
/// problem says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ArgumentError {
    /// The field.
    pub field: String,
    /// What is wrong, and the way out.
    pub problem: String,
}

impl ArgumentError {
    fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }

    fn within(mut self, outer: &str) -> Self {
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

/// A list of arguments; a name that comes twice is refused, though admission sees to it.
pub fn arguments(list: &[Argument]) -> Result<Vec<model::Argument>, ArgumentError> {
    properties(list)
}

/// What can be turned into a rule, whatever its depth.
trait ToRule {
    fn to_rule(&self) -> Result<Rule, ArgumentError>;
}

fn property<V: ToRule>(property: &Property<V>) -> Result<model::Argument, ArgumentError> {
    let rule = property.value.to_rule().map_err(|error| error.within(&property.name))?;
    Ok(model::Argument { name: property.name.clone(), required: property.required, rule })
}

fn properties<V: ToRule>(list: &[Property<V>]) -> Result<Vec<model::Argument>, ArgumentError> {
    let twice = list.iter().enumerate().find(|(at, one)| list.iter().take(*at).any(|other| other.name == one.name));
    if let Some((_, twice)) = twice {
        return Err(ArgumentError::new(&twice.name, "is declared twice; remove one of them"));
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
                only(rules, "array", [("object", object.is_some())])?;
                let Items { items, max_items } = named(array.as_ref(), "array", "Array")?;
                let item = items.to_rule().map_err(|error| error.within("array.items"))?;
                return Ok(Rule::Array(Box::new(ItemRule { item, max_items: *max_items })));
            }
            ValueType::Object => {
                only(rules, "object", [("array", array.is_some())])?;
                let Properties { properties: list } = named(object.as_ref(), "object", "Object")?;
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

/// The rule of a type that holds no other values, checked by the code that will enforce it.
fn plain(kind: PlainType, rules: &PlainRules) -> Result<Rule, ArgumentError> {
    let (name, rule) = match kind {
        PlainType::Path => ("path", path(member(rules, rules.path.as_ref(), "path", "Path")?)),
        PlainType::Enum => ("enum", Rule::Enum(member(rules, rules.r#enum.as_ref(), "enum", "Enum")?.values.clone())),
        PlainType::String => ("string", string(member(rules, rules.string.as_ref(), "string", "String")?)),
        PlainType::Integer => {
            let IntegerRange { minimum, maximum } = *member(rules, rules.integer.as_ref(), "integer", "Integer")?;
            ("integer", Rule::Integer { minimum, maximum })
        }
        PlainType::Number => {
            let NumberRange { minimum, maximum } = member(rules, rules.number.as_ref(), "number", "Number")?.clone();
            ("number", Rule::Number { minimum, maximum })
        }
        PlainType::Boolean => {
            only(rules, "", [])?;
            ("type", Rule::Boolean)
        }
        PlainType::Const => ("const", constant(member(rules, rules.r#const.as_ref(), "const", "Const")?)?),
    };
    rules::validate(&rule).map_err(|error| ArgumentError::new(name, chain(&error)))?;
    Ok(rule)
}

/// An error and everything below it, as one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        // `regex` draws a picture above its last line.
        let reason = source.to_string();
        text = format!("{text}: {}", reason.lines().last().unwrap_or_default().trim_start_matches("error: "));
        below = source.source();
    }
    text
}

/// Refuses members that `type` does not name.
fn only<const N: usize>(rules: &PlainRules, allowed: &str, more: [(&str, bool); N]) -> Result<(), ArgumentError> {
    let PlainRules { path, r#enum, string, integer, number, r#const } = rules;
    let plain = [
        ("path", path.is_some()),
        ("enum", r#enum.is_some()),
        ("string", string.is_some()),
        ("integer", integer.is_some()),
        ("number", number.is_some()),
        ("const", r#const.is_some()),
    ];
    match plain.into_iter().chain(more).find(|(name, set)| *set && *name != allowed) {
        Some((name, _)) => Err(ArgumentError::new(name, "does not belong to this type; remove it or change type")),
        None => Ok(()),
    }
}

/// The member that `type` names, which must be the only one.
fn member<'a, T>(rules: &PlainRules, member: Option<&'a T>, name: &str, kind: &str) -> Result<&'a T, ArgumentError> {
    only(rules, name, [])?;
    named(member, name, kind)
}

fn named<'a, T>(member: Option<&'a T>, name: &str, kind: &str) -> Result<&'a T, ArgumentError> {
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
