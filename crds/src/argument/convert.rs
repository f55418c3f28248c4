//! From the API's arguments to the rules of the policy model, with every check that a schema cannot make.

mod check;

use mcp_fleet_policy::model::{self, ItemRule, Rule, Scalar};

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
                let Items { items, max_items } = member(array.as_ref(), "array", "Array")?;
                let item = items.to_rule().map_err(|error| error.within("array.items"))?;
                return Ok(Rule::Array(Box::new(ItemRule { item, max_items: *max_items })));
            }
            ValueType::Object => {
                only(rules, "object", [("array", array.is_some())])?;
                let Properties { properties: list } = member(object.as_ref(), "object", "Object")?;
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

/// The rule of a type that holds no other values.
fn plain(kind: PlainType, rules: &PlainRules) -> Result<Rule, ArgumentError> {
    match kind {
        PlainType::Path => only(rules, "path", [])?,
        PlainType::Enum => only(rules, "enum", [])?,
        PlainType::String => only(rules, "string", [])?,
        PlainType::Integer => only(rules, "integer", [])?,
        PlainType::Number => only(rules, "number", [])?,
        PlainType::Boolean => only(rules, "", [])?,
        PlainType::Const => only(rules, "const", [])?,
    }
    match kind {
        PlainType::Path => path(member(rules.path.as_ref(), "path", "Path")?),
        PlainType::Enum => Ok(Rule::Enum(check::values(&member(rules.r#enum.as_ref(), "enum", "Enum")?.values)?)),
        PlainType::String => string(member(rules.string.as_ref(), "string", "String")?),
        PlainType::Integer => integer(member(rules.integer.as_ref(), "integer", "Integer")?),
        PlainType::Number => number(member(rules.number.as_ref(), "number", "Number")?),
        PlainType::Boolean => Ok(Rule::Boolean),
        PlainType::Const => constant(member(rules.r#const.as_ref(), "const", "Const")?),
    }
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

fn member<'a, T>(member: Option<&'a T>, name: &str, kind: &str) -> Result<&'a T, ArgumentError> {
    member.ok_or_else(|| ArgumentError::new(name, format!("must be set when type is {kind}")))
}

fn path(rule: &PathRule) -> Result<Rule, ArgumentError> {
    check::roots(&rule.within)?;
    Ok(Rule::Path(model::PathRule {
        within: rule.within.clone(),
        extensions: rule.extensions.clone(),
        dotfiles: rule.dotfiles == DotFiles::Allow,
    }))
}

fn string(rule: &StringRule) -> Result<Rule, ArgumentError> {
    if let Some(pattern) = &rule.pattern {
        check::pattern(pattern).map_err(|problem| ArgumentError::new("string.pattern", problem))?;
    }
    Ok(Rule::String(model::StringRule {
        max_length: rule.max_length,
        pattern: rule.pattern.clone(),
        leading_dash: rule.leading_dash == Dash::Allow,
    }))
}

fn integer(rule: &IntegerRange) -> Result<Rule, ArgumentError> {
    let IntegerRange { minimum, maximum } = *rule;
    if minimum > maximum {
        return Err(ArgumentError::new("integer.minimum", "must not be larger than maximum; swap them"));
    }
    Ok(Rule::Integer { minimum, maximum })
}

fn number(rule: &NumberRange) -> Result<Rule, ArgumentError> {
    let bound = |name: &str, text: &str| {
        text.parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
            .ok_or_else(|| ArgumentError::new(name, "must be a decimal string such as \"0.5\""))
    };
    let (minimum, maximum) = (bound("number.minimum", &rule.minimum)?, bound("number.maximum", &rule.maximum)?);
    if minimum > maximum {
        return Err(ArgumentError::new("number.minimum", "must not be larger than maximum; swap them"));
    }
    Ok(Rule::Number { minimum: rule.minimum.clone(), maximum: rule.maximum.clone() })
}

fn constant(rule: &Constant) -> Result<Rule, ArgumentError> {
    let scalar = match rule {
        Constant { string: Some(text), integer: None, boolean: None } => Scalar::String(text.clone()),
        Constant { string: None, integer: Some(number), boolean: None } => Scalar::Integer(*number),
        Constant { string: None, integer: None, boolean: Some(truth) } => Scalar::Boolean(*truth),
        _ => return Err(ArgumentError::new("const", "must have exactly one of string, integer and boolean")),
    };
    Ok(Rule::Const(scalar))
}

#[cfg(test)]
mod tests;
