//! Converts argument rules from the wire to the model.

use std::sync::Arc;

use mcp_fleet_policy::json::MAX_INTEGER;
use mcp_fleet_policy::model::{Argument, ArrayRule, JsonRule, MapRule, PathRule, Rule, Scalar, Shown, StringRule};

use super::ConvertError;
use super::field::{each, invalid, require, text};
use crate::wire;
use crate::wire::const_rule::Value;
use crate::wire::rule::Kind;

pub(super) fn arguments(list: Vec<wire::Argument>) -> Result<Vec<Argument>, ConvertError> {
    each(list, |wire::Argument { name, required, rule: kind, title, description }| {
        let kind = kind.ok_or(ConvertError::Missing("argument.rule"))?;
        Ok(Argument {
            name: text(name, "argument.name")?,
            required,
            rule: rule(kind)?,
            shown: shown(title, description),
        })
    })
}

/// Returns the texts, if there are any.
pub(super) fn shown(title: Option<String>, description: Option<String>) -> Option<Arc<Shown>> {
    Shown::new(title, description).map(Arc::new)
}

fn rule(message: wire::Rule) -> Result<Rule, ConvertError> {
    let wire::Rule { kind } = message;
    Ok(match kind.ok_or(ConvertError::Missing("rule"))? {
        Kind::Path(wire::PathRule { within, extensions, dotfiles }) => {
            // Reject a path rule without roots here: it would admit no path, and every user would have to know that.
            require(!within.is_empty(), "path.within", "a list of one root or more")?;
            require(within.iter().all(|root| root.starts_with('/')), "path.within", "a list of absolute paths")?;
            Rule::Path(PathRule { within, extensions, dotfiles })
        }
        Kind::Enum(wire::EnumRule { values }) => Rule::Enum(values),
        Kind::String(message) => Rule::String(string(message)),
        Kind::Integer(wire::IntegerRule { minimum, maximum }) => {
            let exact = |value: i64| (-MAX_INTEGER..=MAX_INTEGER).contains(&value);
            require(exact(minimum) && exact(maximum), "integer", "within 2^53 − 1 either side of zero")?;
            Rule::Integer { minimum, maximum }
        }
        Kind::Number(wire::NumberRule { minimum, maximum }) => {
            Rule::Number { minimum: decimal(minimum)?, maximum: decimal(maximum)? }
        }
        Kind::Boolean(wire::BooleanRule {}) => Rule::Boolean,
        Kind::Const(wire::ConstRule { value }) => match value.ok_or(ConvertError::Missing("const"))? {
            Value::String(value) => Rule::Const(Scalar::String(value)),
            Value::Integer(value) => Rule::Const(Scalar::Integer(value)),
            Value::Boolean(value) => Rule::Const(Scalar::Boolean(value)),
        },
        Kind::Array(list) => {
            let wire::ArrayRule { item, max_items } = *list;
            let item = rule(*item.ok_or(ConvertError::Missing("array.item"))?)?;
            Rule::Array(Box::new(ArrayRule { item, max_items }))
        }
        Kind::Object(wire::ObjectRule { properties }) => Rule::Object(arguments(properties)?),
        Kind::Map(map) => {
            let wire::MapRule { names, values, max_properties } = *map;
            let names = string(names.ok_or(ConvertError::Missing("map.names"))?);
            let values = rule(*values.ok_or(ConvertError::Missing("map.values"))?)?;
            Rule::Map(Box::new(MapRule { names, values, max_properties }))
        }
        Kind::OneOf(wire::OneOfRule { options }) => Rule::OneOf(each(options, rule)?),
        Kind::Nullable(inner) => Rule::Nullable(Box::new(rule(*inner)?)),
        Kind::Json(wire::JsonRule { max_bytes, max_depth }) => Rule::Json(JsonRule { max_bytes, max_depth }),
    })
}

fn string(message: wire::StringRule) -> StringRule {
    let wire::StringRule { max_length, pattern, leading_dash } = message;
    StringRule { max_length, pattern, leading_dash }
}

fn decimal(value: String) -> Result<String, ConvertError> {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(value),
        _ => Err(invalid("number", "a finite decimal number")),
    }
}
